// One plot: series over time, with gaps where nothing is known and marks for scale decisions.

const HEIGHT = 150;
const EDGE = { left: 56, right: 10, top: 12, bottom: 20 };
const NEAR_MARK_PX = 6;

// Where all plots show the values of: null is the end.
const cursor = { time: null, charts: new Set() };

class Chart {
  // series: [{ name, label, colour, kind }], kind one of line, dashes, wash, stack; unit: of `words`.
  constructor(title, unit, series, options = {}) {
    Object.assign(this, { title, unit, series, options });
    this.svg = draw("svg", { role: "img", tabindex: "0", "data-chart": title });
    this.items = series.map((one) => {
      const value = make("b");
      const kind = one.kind === "stack" || one.kind === "wash" ? "" : " thin";
      const key = make("span", { class: `key c-${one.colour}${kind}${one.kind === "dashes" ? " dashes" : ""}` });
      return { item: make("li", {}, key, one.label, value), value };
    });
    const heading = make("h2", {}, title);
    if (options.note) heading.append(make("small", {}, options.note));
    const legend = make("ul", { class: "legend" }, ...this.items.map(({ item }) => item));
    this.element = make("div", { class: "chart" }, heading, legend, this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => point(null));
    this.svg.addEventListener("blur", () => point(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    cursor.charts.add(this);
  }

  update(past, frame) {
    this.past = past;
    this.frame = frame;
    this.columns = this.series.map((one) => (one.of ? past.sum(one.of) : past.column(one.name)));
    this.render();
  }

  render() {
    if (!this.past || !this.element.isConnected) return;
    const { frame, past } = this;
    this.width = Math.max(200, this.svg.clientWidth);
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.first = past.times.findIndex((t) => t >= frame.from_s - frame.interval_s);
    if (this.first < 0) this.first = past.times.length;
    const stacks = this.stacks();
    this.top = this.highest(stacks);
    const parts = [...this.axes()];
    this.series.forEach((one, i) => {
      if (one.kind !== "stack") return;
      const area = this.area(stacks[i].upper, stacks[i].lower, `fill c-${one.colour}`);
      area.setAttribute("data-series", one.label);
      parts.push(area);
    });
    this.series.forEach((one, i) => {
      if (this.absent(i)) return;
      if (one.kind === "wash") parts.push(this.area(this.columns[i], null, `wash c-${one.colour}`));
      if (one.kind !== "stack") {
        const style = `path c-${one.colour}${one.kind === "dashes" ? " dashes" : ""}`;
        parts.push(draw("path", { class: style, d: this.line(this.columns[i]), "data-series": one.label }));
      }
    });
    this.svg.replaceChildren(...parts.filter(Boolean), ...this.marks());
    this.pointer = draw("line", { class: "cursor", y1: EDGE.top, y2: HEIGHT - EDGE.bottom });
    this.svg.append(this.pointer);
    this.show();
  }

  x(time_s) {
    const { from_s, to_s } = this.frame;
    return EDGE.left + ((time_s - from_s) / (to_s - from_s)) * (this.width - EDGE.left - EDGE.right);
  }

  y(value) {
    return HEIGHT - EDGE.bottom - (value / this.top) * (HEIGHT - EDGE.top - EDGE.bottom);
  }

  // What is rare is only there if it was more than nothing within the time shown.
  absent(n) {
    return Boolean(this.series[n].rare) && !this.columns[n].slice(this.first).some((v) => v > 0);
  }

  // Stacked columns from the bottom up; an instant of which nothing is known is a gap in all.
  stacks() {
    let lower = this.past.times.map(() => 0);
    return this.columns.map((column, i) => {
      if (this.series[i].kind !== "stack") return null;
      const base = lower;
      const upper = base.map((b, t) => (known(column[t]) ? b + column[t] : null));
      lower = upper.map((u, t) => u ?? base[t]);
      return { upper, lower: base };
    });
  }

  highest(stacks) {
    const columns = this.columns.map((column, i) => stacks[i]?.upper ?? column);
    const values = columns.flatMap((column) => column.slice(this.first)).filter(known);
    const most = Math.max(this.options.least ?? 0, ...values);
    if (this.options.limit) return Math.max(this.options.limit, most);
    return most > 0 ? roundUp(most, this.unit === "bytes") : 1;
  }

  axes() {
    const parts = [];
    const steps = this.unit === "count" && this.top < 2 ? 1 : 2;
    for (let i = 0; i <= steps; i += 1) {
      const value = (this.top * i) / steps;
      const y = this.y(value);
      parts.push(draw("line", { class: "grid", x1: EDGE.left, x2: this.width - EDGE.right, y1: y, y2: y }));
      const label = draw("text", { x: EDGE.left - 6, y: y + 4, "text-anchor": "end" });
      label.textContent = words[this.unit](value);
      parts.push(label);
    }
    const { from_s, to_s } = this.frame;
    const wanted_s = ((to_s - from_s) * 110) / this.width;
    const step_s = [60, 120, 300, 600, 900].find((s) => s >= wanted_s) ?? 1800;
    for (let t = Math.ceil(from_s / step_s) * step_s; t <= to_s; t += step_s) {
      const label = draw("text", { x: Math.min(this.x(t), this.width - 24), y: HEIGHT - 5, "text-anchor": "middle" });
      label.textContent = clock(t, false);
      parts.push(label);
    }
    return parts;
  }

  // Runs of instants without a gap, as lists of indices.
  runs(column) {
    const { times } = this.past;
    const found = [];
    for (let i = this.first; i < times.length; i += 1) {
      if (!known(column[i])) continue;
      const last = found.at(-1);
      const joined = last && last.at(-1) === i - 1 && times[i] - times[i - 1] < 3 * this.frame.interval_s;
      if (joined) last.push(i);
      else found.push([i]);
    }
    return found;
  }

  line(column) {
    return this.runs(column).map((run) => `M${this.points(run, column).join("L")}${run.length > 1 ? "" : "h.01"}`).join("");
  }

  // Counts of whole things change at once, so their lines go in steps.
  points(run, column) {
    const found = [];
    run.forEach((i, n) => {
      const x = this.x(this.past.times[i]).toFixed(1);
      if (this.options.steps && n && column[i] !== column[run[n - 1]]) {
        found.push(`${x} ${this.y(column[run[n - 1]]).toFixed(1)}`);
      }
      found.push(`${x} ${this.y(column[i]).toFixed(1)}`);
    });
    return found;
  }

  area(upper, lower, style) {
    const floor = lower ?? upper.map(() => 0);
    const d = this.runs(upper)
      .map((run) => `M${this.points(run, upper).join("L")}L${this.points(run, floor).reverse().join("L")}Z`)
      .join("");
    return draw("path", { class: style, d });
  }

  marks() {
    if (!this.options.marks) return [];
    return this.frame.decisions.flatMap((decision) => {
      const x = this.x(decision.time_s);
      if (x < EDGE.left || x > this.width - EDGE.right) return [];
      const held = decision.before === decision.after ? " held" : "";
      const line = draw("line", { class: `mark${held}`, x1: x, x2: x, y1: EDGE.top, y2: HEIGHT - EDGE.bottom });
      const head = draw("path", { class: `markhead${held}`, d: `M${x - 4} 3h8l-4 7z` });
      return [line, head];
    });
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const share = (event.clientX - box.left - EDGE.left) / (box.width - EDGE.left - EDGE.right);
    const { from_s, to_s } = this.frame ?? {};
    if (!this.past || share < -0.02 || share > 1.02) return point(null);
    point(from_s + share * (to_s - from_s));
    return this.tip(event);
  }

  tip(event) {
    const near = this.options.marks
      ? this.frame.decisions.filter((d) => Math.abs(this.x(d.time_s) - this.x(cursor.time)) <= NEAR_MARK_PX)
      : [];
    tip(near.slice(-3).map(decisionWords), event);
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!steps || !this.past?.times.length) return;
    event.preventDefault();
    const from = cursor.time ?? this.past.times.at(-1);
    const time = from + steps * this.frame.interval_s * (event.shiftKey ? 15 : 1);
    point(Math.min(Math.max(time, this.frame.from_s), this.frame.to_s));
    const box = this.svg.getBoundingClientRect();
    this.tip({ clientX: box.left + this.x(cursor.time), clientY: box.top });
  }

  // The legend's values: at the cursor, or the last ones.
  show() {
    if (!this.past) return;
    const { times } = this.past;
    const i = cursor.time === null ? times.length - 1 : this.past.at(cursor.time, this.frame.interval_s);
    const told = this.items.map(({ value, item }, n) => {
      const column = this.columns[n];
      item.hidden = this.absent(n);
      say(value, words[this.unit](i < 0 ? null : column[i]));
      return item.hidden ? "" : `${this.series[n].label} ${value.textContent}`;
    });
    if (this.pointer) {
      const x = cursor.time === null ? -10 : this.x(cursor.time);
      this.pointer.setAttribute("x1", x);
      this.pointer.setAttribute("x2", x);
    }
    this.svg.setAttribute("aria-label", `${this.title}: ${told.filter(Boolean).join(", ")}`);
  }
}

function point(time_s) {
  cursor.time = time_s;
  if (time_s === null) tip([]);
  for (const chart of cursor.charts) chart.show();
}

function decisionWords(decision) {
  const step = decision.before === decision.after ? `stays ${decision.after}` : `${decision.before} → ${decision.after}`;
  const advice = decision.applied ? "" : " (advice only)";
  return `${clock(decision.time_s)} ${decision.deployment} ${step}${advice}: ${decision.reason}`;
}

function tip(lines, event) {
  const box = document.getElementById("tip");
  box.hidden = !lines.length;
  if (box.hidden) return;
  box.replaceChildren(...lines.map((line) => make("div", {}, line)));
  const x = Math.min(event.clientX + 12, window.innerWidth - box.offsetWidth - 8);
  box.style.left = `${Math.max(8, x)}px`;
  box.style.top = `${Math.max(8, event.clientY - box.offsetHeight - 12)}px`;
}
