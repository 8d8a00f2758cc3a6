// What views are made of: tiles, plots side by side, tables whose rows stay while they are updated.

const LEVELS = ["fine", "notice", "warning", "trouble"];

class Tiles {
  constructor(labels) {
    this.values = labels.map(() => make("b", {}, UNKNOWN));
    const tiles = labels.map((label, i) =>
      make("div", { class: "tile" }, this.values[i], make("span", {}, label)));
    this.element = make("section", { class: "tiles" }, ...tiles);
  }

  // texts: one for each label; a pair adds its level.
  update(texts) {
    texts.forEach((text, i) => {
      const [told, level] = Array.isArray(text) ? text : [text, null];
      say(this.values[i], told);
      this.values[i].className = level ? `level-${level}` : "";
    });
  }
}

class Charts {
  constructor(charts) {
    this.charts = charts;
    this.element = make("section", { class: "charts" }, ...charts.map((chart) => chart.element));
  }

  update(past, frame) {
    for (const chart of this.charts) chart.update(past, frame);
  }
}

// columns: [{ title, of: row → text, kind: "", "number", "words" or "name", wide, link: row → hash,
// level: row → 0 to 3 }]. Rows are told apart by `key`.
class Table {
  constructor(title, columns, { key, none, shown = 15, filter = false }) {
    Object.assign(this, { columns, key, shown });
    this.rows = new Map();
    this.heading = make("h2", {}, title);
    this.body = make("tbody");
    this.none = make("p", { class: "none" }, none);
    this.more = make("button", { type: "button" });
    // Before the first answer it is not known whether there are none.
    this.none.hidden = this.more.hidden = true;
    this.more.addEventListener("click", () => {
      this.shown = this.shown === Infinity ? shown : Infinity;
      this.update(this.all, this.count);
    });
    const bar = make("div", {}, this.heading);
    if (filter) bar.append(this.search(title));
    const head = make("tr", {}, ...columns.map((c) => make("th", { scope: "col", class: style(c) }, c.title)));
    this.table = make("table", { "aria-label": title }, make("thead", {}, head), this.body);
    this.element = make("section", { class: "panel" }, bar, make("div", { class: "scroll" }, this.table), this.none, this.more);
  }

  search(title) {
    this.input = make("input", { type: "search", placeholder: "name", "aria-label": `Names among ${title}` });
    this.input.addEventListener("input", () => this.update(this.all, this.count));
    this.input.addEventListener("keydown", (event) => {
      // Of very many deployments not all are listed; a name still leads there.
      const name = this.input.value.trim();
      if (event.key === "Enter" && name) location.hash = `#/deployments/${encodeURIComponent(name)}`;
    });
    return this.input;
  }

  update(rows, count = rows?.length) {
    if (!rows) return;
    [this.all, this.count] = [rows, count];
    const word = this.input?.value.trim().toLowerCase() ?? "";
    const fitting = word ? rows.filter((row) => this.key(row).toLowerCase().includes(word)) : rows;
    const shown = fitting.slice(0, this.shown);
    const kept = new Set(shown.map(this.key));
    for (const [key, row] of this.rows) {
      if (!kept.has(key)) {
        row.element.remove();
        this.rows.delete(key);
      }
    }
    shown.forEach((row) => this.row(row));
    // Moving a row under somebody's pointer or focus makes them miss it.
    if (!this.body.matches(":hover, :focus-within")) {
      const order = shown.map((row) => this.rows.get(this.key(row)).element);
      if (order.some((element, i) => this.body.children[i] !== element)) this.body.append(...order);
    }
    this.table.hidden = !shown.length;
    this.none.hidden = Boolean(shown.length);
    this.more.hidden = fitting.length <= shown.length && this.shown !== Infinity;
    const listed = rows.length < count ? ` (the ${rows.length} worst of ${words.count(count)} are listed)` : "";
    say(this.more, this.shown === Infinity ? "show fewer" : `show all ${fitting.length}${listed}`);
  }

  row(values) {
    const key = this.key(values);
    let row = this.rows.get(key);
    if (!row) {
      const cells = this.columns.map((column) => make("td", { class: style(column) }));
      const told = this.columns.map((column, i) => {
        if (!column.link) return cells[i];
        const link = make("a", { href: column.link(values) });
        cells[i].append(link);
        return link;
      });
      row = { element: make("tr", {}, ...cells), told };
      this.rows.set(key, row);
      this.body.append(row.element);
    }
    this.columns.forEach((column, i) => {
      say(row.told[i], column.of(values));
      if (column.level) row.told[i].className = `badge level-${column.level(values)}`;
    });
  }
}

function style(column) {
  return [column.kind ?? "", column.wide ? "wide" : ""].join(" ").trim();
}

const troubleColumn = {
  title: "State",
  kind: "words",
  level: (row) => row.level,
  of: (row) => row.trouble.join(" · ") || "fine",
};

function decisionsTable(withName) {
  const columns = [
    { title: "When", kind: "number", of: (d) => clock(d.time_s) },
    { title: "Deployment", kind: "name", of: (d) => d.deployment, link: (d) => deploymentLink(d.deployment) },
    { title: "Target", kind: "number", of: (d) => (d.before === d.after ? `${d.after}` : `${d.before} → ${d.after}`) },
    { title: "Rule", wide: true, of: (d) => d.rule.replaceAll("_", " ") },
    { title: "Why", kind: "words", of: (d) => d.reason + (d.applied ? "" : " (advice only)") },
  ];
  if (!withName) columns.splice(1, 1);
  const none = "No scale decision in the last half hour, or none could be read.";
  return new Table("Scale decisions", columns, { key: (d) => String(d.number), none, shown: 10 });
}

function deploymentLink(name) {
  return `#/deployments/${encodeURIComponent(name)}`;
}

function nodeLink(name) {
  return `#/nodes/${encodeURIComponent(name)}`;
}
