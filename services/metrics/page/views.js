// The three views: the mesh, one deployment, one node. Each is built once and then updated.

const REPLICAS = [
  { name: "ready", label: "ready", colour: "green", kind: "stack" },
  { name: "starting", label: "starting", colour: "amber", kind: "stack" },
  { name: "draining", label: "draining", colour: "gray", kind: "stack", rare: true },
  { name: "failed", label: "failed", colour: "red", kind: "stack", rare: true },
  { name: "target", label: "target", colour: "ink", kind: "line" },
  { name: "assigned", label: "assigned", colour: "violet", kind: "dashes" },
];
const FAILURES = [
  ["deadline_exceeded", "amber"], ["internal", "red"], ["aborted", "violet"], ["resource_exhausted", "aqua"],
];
const OTHERS = ["cancelled", "not_found", "invalid_argument", "unavailable"];
const OUTCOMES = [
  { name: "outcome_ok", label: "ok", colour: "green", kind: "stack" },
  ...FAILURES.map(([name, colour]) => ({
    name: `outcome_${name}`, label: name.replaceAll("_", " "), colour, kind: "stack", rare: true,
  })),
  { of: OTHERS.map((name) => `outcome_${name}`), label: "other", colour: "gray", kind: "stack", rare: true },
];
const GPU_COLOURS = ["blue", "amber", "green", "violet", "red", "aqua", "gray", "ink"];

function percentiles(prefix) {
  return ["p99", "p95", "p50"].map((q, i) => ({
    name: `${prefix}_${q}_s`, label: q, colour: ["high", "mid", "low"][i], kind: "line",
  }));
}

function meshView() {
  const tiles = new Tiles(["deployments in trouble", "queued", "ongoing", "replicas ready / target", "nodes up", "GPUs in use"]);
  const table = new Table("Deployments", [
    { title: "Name", kind: "name", of: (d) => d.name, link: (d) => deploymentLink(d.name) },
    troubleColumn,
    { title: "Queued", kind: "number", of: (d) => words.count(d.queued) },
    { title: "Ongoing", kind: "number", of: (d) => words.count(d.ongoing) },
    { title: "Ready / target", kind: "number", of: (d) => `${words.count(d.ready)} / ${words.count(d.target)}` },
    { title: "Arrivals", kind: "number", wide: true, of: (d) => words.rate(d.arrivals_per_s) },
    { title: "Wait p95", kind: "number", wide: true, of: (d) => words.seconds(d.queue_wait_p95_s) },
    { title: "Service p95", kind: "number", wide: true, of: (d) => words.seconds(d.service_time_p95_s) },
  ], { key: (d) => d.name, none: "No deployment of that name, or none at all.", filter: true });
  const nodes = new Table("Nodes", [
    { title: "Name", kind: "name", of: (n) => n.name, link: (n) => nodeLink(n.name) },
    { ...troubleColumn, of: (n) => n.trouble.join(" · ") || n.state },
    { title: "Replicas", kind: "number", of: (n) => words.count(n.replicas) },
    { title: "Slots", kind: "number", wide: true, of: (n) => words.count(n.slots) },
    { title: "GPUs", kind: "number", of: (n) => words.count(n.gpus) },
    { title: "GPU use", kind: "number", of: (n) => words.ratio(n.gpu_utilization_ratio) },
    { title: "GPU memory", kind: "number", wide: true, of: (n) => (n.gpus ? `${words.bytes(n.gpu_memory_used_bytes)} of ${words.bytes(n.gpu_memory_total_bytes)}` : UNKNOWN) },
  ], { key: (n) => n.name, none: "No node has reported." });
  const least = { rare: true, kind: "dashes" };
  const charts = new Charts([
    new Chart("Queued and ongoing", "count", [
      { name: "queued", label: "queued", colour: "amber", kind: "wash" },
      { name: "ongoing", label: "ongoing", colour: "blue", kind: "line" },
      { ...least, name: "queued_at_least", label: "queued, at least", colour: "amber" },
      { ...least, name: "ongoing_at_least", label: "ongoing, at least", colour: "blue" },
    ], { marks: true, least: 4 }),
    new Chart("Replicas", "count", REPLICAS, { marks: true, steps: true, least: 2 }),
    new Chart("Arrivals", "rate", [
      { name: "arrivals_per_s", label: "requests and tasks", colour: "blue", kind: "wash" },
      { ...least, name: "arrivals_per_s_at_least", label: "at least", colour: "blue" },
    ]),
    new Chart("Attempts that ended", "rate", OUTCOMES),
  ]);
  const gpus = new Charts([
    new Chart("GPU utilisation", "ratio", [
      { name: "gpu_utilization_max_ratio", label: "busiest", colour: "low", kind: "line" },
      { name: "gpu_utilization_mean_ratio", label: "mean", colour: "high", kind: "line" },
    ], { limit: 1 }),
    new Chart("GPU memory", "bytes", [
      { name: "gpu_memory_used_bytes", label: "used", colour: "blue", kind: "wash" },
      { name: "gpu_memory_total_bytes", label: "there is", colour: "ink", kind: "dashes" },
    ]),
  ]);
  const decisions = decisionsTable(true);
  const elements = [tiles, table, charts, gpus, nodes, decisions].map((part) => part.element);
  return {
    url: "/api/mesh",
    elements,
    where: "the mesh",
    update(answer, past, frame) {
      const now = (name) => past.column(name).at(-1);
      const bad = answer.deployments.filter((d) => d.level >= 2);
      const lost = answer.nodes.filter((n) => n.level >= 3).length;
      const queued = now("queued") ?? now("queued_at_least");
      tiles.update([
        [`${bad.length} of ${words.count(answer.deployment_count)}`, bad.length ? Math.max(...bad.map((d) => d.level)) : 0],
        now("queued") === null && known(queued) ? `≥ ${words.count(queued)}` : words.count(queued),
        words.count(now("ongoing") ?? now("ongoing_at_least")),
        `${words.count(now("ready"))} / ${words.count(now("target"))}`,
        [`${words.count(now("nodes_up"))} of ${words.count(answer.node_count)}`, lost ? 3 : 0],
        words.ratio(now("gpu_utilization_mean_ratio")),
      ]);
      table.update(answer.deployments, answer.deployment_count);
      nodes.update(answer.nodes, answer.node_count);
      decisions.update(answer.decisions.toReversed());
      gpus.element.hidden = !past.column("gpu_memory_total_bytes").some(known);
      charts.update(past, frame);
      gpus.update(past, frame);
    },
  };
}

function deploymentView(name) {
  const tiles = new Tiles(["state", "queued", "ongoing", "replicas ready / assigned / target", "arrivals", "queue wait p95", "service time p95"]);
  const why = make("b");
  const wrong = make("p", { class: "sentence" });
  const reason = make("p", { class: "sentence" }, why);
  const charts = new Charts([
    new Chart("Queued and ongoing", "count", [
      { name: "queued", label: "queued", colour: "amber", kind: "wash" },
      { name: "ongoing", label: "ongoing", colour: "blue", kind: "line" },
      { name: "queued_tasks", label: "of these tasks: queued", colour: "amber", kind: "dashes", rare: true },
      { name: "ongoing_tasks", label: "ongoing", colour: "blue", kind: "dashes", rare: true },
    ], { marks: true, least: 4 }),
    new Chart("Replicas", "count", REPLICAS, { marks: true, steps: true, least: 2 }),
    new Chart("Queue wait", "seconds", percentiles("queue_wait"), { note: "stored to delivered", marks: true }),
    new Chart("Service time", "seconds", percentiles("service_time"), { note: "inside the replica" }),
    new Chart("Arrivals", "rate", [{ name: "arrivals_per_s", label: "requests and tasks", colour: "blue", kind: "wash" }]),
    new Chart("Attempts that ended", "rate", OUTCOMES),
    new Chart("Oldest queued request", "seconds", [{ name: "oldest_queued_age_s", label: "age", colour: "amber", kind: "wash" }], { marks: true }),
    new Chart("Memory of its Tritons", "bytes", [
      { name: "resident_memory_bytes", label: "resident", colour: "blue", kind: "wash" },
      { name: "gpu_memory_used_bytes", label: "of GPUs", colour: "violet", kind: "line", rare: true },
    ]),
  ]);
  const gpus = gpuCharts();
  const replicas = new Table("Replicas", [
    { title: "Replica", kind: "name", of: (r) => r.replica },
    { title: "State", of: (r) => r.state, level: (r) => ({ ready: 0, failed: 3 })[r.state] ?? 1 },
    { title: "Node", of: (r) => r.node, link: (r) => nodeLink(r.node) },
    { title: "Ongoing / slots", kind: "number", of: (r) => `${r.ongoing} / ${r.slots}` },
    { title: "Started in", kind: "number", wide: true, of: (r) => words.seconds(r.startup_s) },
    { title: "Starts", kind: "number", wide: true, of: (r) => words.count(r.starts) },
    { title: "Memory", kind: "number", wide: true, of: (r) => words.bytes(r.resident_memory_bytes) },
    { title: "GPU memory", kind: "number", wide: true, of: (r) => words.bytes(r.gpu_memory_used_bytes) },
  ], { key: (r) => r.replica, none: "No replica is there." });
  const decisions = decisionsTable(false);
  const head = make("section", {}, tiles.element, wrong, reason);
  return {
    url: `/api/deployments/${encodeURIComponent(name)}`,
    elements: [head, charts.element, gpus.element, replicas.element, decisions.element],
    where: name,
    update(answer, past, frame) {
      const { deployment: d, wanted } = answer;
      tiles.update([
        [LEVELS[d.level], d.level],
        words.count(d.queued),
        words.count(d.ongoing),
        `${words.count(d.ready)} / ${words.count(d.assigned)} / ${words.count(d.target)}`,
        words.rate(d.arrivals_per_s),
        words.seconds(d.queue_wait_p95_s),
        words.seconds(d.service_time_p95_s),
      ]);
      say(wrong, d.trouble.join(" · "));
      wrong.hidden = !d.trouble.length;
      wrong.className = `sentence level-${d.level}`;
      say(why, known(wanted.target) ? `Target ${wanted.target}: ${wanted.reason}` : "The autoscaler has not said how many replicas it wants.");
      charts.update(past, frame);
      gpus.update(answer, frame);
      replicas.update(answer.replicas);
      decisions.update(answer.decisions.toReversed());
    },
  };
}

function nodeView(name) {
  const tiles = new Tiles(["state", "replicas", "slots", "GPUs", "GPU use", "GPU memory"]);
  const wrong = make("p", { class: "sentence" });
  const gpus = gpuCharts();
  const table = new Table("GPUs", [
    { title: "UUID", kind: "name", of: (g) => g.uuid },
    { title: "Product", of: (g) => g.product || UNKNOWN },
    {
      title: "Health",
      kind: "words",
      level: (g) => (["faulty", "lost"].includes(g.health) ? 3 : 0),
      of: (g) => g.health_message || (["faulty", "lost"].includes(g.health) ? g.health : "fine"),
    },
    { title: "Use", kind: "number", of: (g) => words.ratio(g.now.utilization_ratio) },
    { title: "Memory", kind: "number", of: (g) => `${words.bytes(g.now.memory_used_bytes)} of ${words.bytes(g.memory_total_bytes)}` },
    { title: "Temperature", kind: "number", wide: true, of: (g) => words.celsius(g.now.temperature_celsius) },
    { title: "Power", kind: "number", wide: true, of: (g) => words.watts(g.now.power_watts) },
  ], { key: (g) => g.uuid, none: "The node has no GPUs." });
  return {
    url: `/api/nodes/${encodeURIComponent(name)}`,
    elements: [make("section", {}, tiles.element, wrong), table.element, gpus.element],
    where: name,
    update(answer, _, frame) {
      const n = answer.node;
      tiles.update([
        [n.state, n.level],
        words.count(n.replicas),
        words.count(n.slots),
        words.count(n.gpus),
        words.ratio(n.gpu_utilization_ratio),
        n.gpus ? `${words.bytes(n.gpu_memory_used_bytes)} of ${words.bytes(n.gpu_memory_total_bytes)}` : UNKNOWN,
      ]);
      say(wrong, n.trouble.join(" · "));
      wrong.className = `sentence level-${n.level}`;
      table.update(answer.gpus, answer.gpu_count);
      gpus.update(answer, frame);
    },
  };
}

// Plots of GPUs, which come and go: one line for each, in four plots.
function gpuCharts() {
  const element = make("section", { class: "charts" });
  let shown = "";
  let charts = [];
  const past = new Past();
  const build = (gpus) => {
    for (const { chart } of charts) cursor.charts.delete(chart);
    const plot = (title, unit, field, options) => ({
      chart: new Chart(title, unit, gpus.map((gpu, i) => ({
        name: `${gpu.node}/${gpu.uuid}/${field}`,
        label: `${gpu.node} ${gpu.uuid.slice(-8)}`,
        colour: GPU_COLOURS[i % GPU_COLOURS.length],
        kind: i < GPU_COLOURS.length ? "line" : "dashes",
      })), options),
      field,
    });
    const memory_bytes = Math.max(0, ...gpus.map((gpu) => gpu.memory_total_bytes));
    charts = [
      plot("GPU utilisation", "ratio", "utilization_ratio", { limit: 1 }),
      plot("GPU memory used", "bytes", "memory_used_bytes", { limit: memory_bytes, note: `of ${words.bytes(memory_bytes)}` }),
      plot("GPU temperature", "celsius", "temperature_celsius", { least: 100 }),
      plot("GPU power", "watts", "power_watts", {}),
    ];
    element.replaceChildren(...charts.map(({ chart }) => chart.element));
  };
  return {
    element,
    update(answer, frame) {
      const names = answer.gpus.map((gpu) => `${gpu.node}/${gpu.uuid}`).join(" ");
      if (names !== shown) build(answer.gpus);
      shown = names;
      element.hidden = !answer.gpus.length;
      const columns = {};
      for (const gpu of answer.gpus) {
        for (const [field, column] of Object.entries(gpu.values)) columns[`${gpu.node}/${gpu.uuid}/${field}`] = column;
      }
      past.take({ ...answer, history: { ...answer.history, values: {} } }, columns);
      for (const { chart, field } of charts) {
        chart.element.hidden = !answer.gpus.some((gpu) => past.column(`${gpu.node}/${gpu.uuid}/${field}`).some(known));
        chart.update(past, frame);
      }
    },
  };
}
