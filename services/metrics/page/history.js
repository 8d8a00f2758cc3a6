// What was read of a history so far: each answer brings what is new since the one before.

class Past {
  constructor() {
    this.run = "";
    this.clear();
  }

  clear() {
    this.nextTick = 0;
    this.times = [];
    this.values = new Map();
  }

  // The tick after which to ask; -1 for everything.
  get since() {
    return this.nextTick - 1;
  }

  take(answer, more = {}) {
    const { history, run, length } = answer;
    if (run !== this.run || history.first_tick > this.nextTick || history.next_tick < this.nextTick) {
      // Another process, or a page that slept for longer than the history lasts.
      this.clear();
      this.run = run;
      if (history.first_tick > 0 && history.times_s.length < length) return false;
    }
    const skip = this.nextTick - history.first_tick;
    const before = this.times.length;
    this.times.push(...history.times_s.slice(skip));
    for (const [name, column] of Object.entries({ ...history.values, ...more })) {
      if (!this.values.has(name)) this.values.set(name, new Array(before).fill(null));
      this.values.get(name).push(...column.slice(skip));
    }
    const extra = Math.max(0, this.times.length - length);
    this.times.splice(0, extra);
    for (const column of this.values.values()) {
      while (column.length < this.times.length + extra) column.push(null);
      column.splice(0, extra);
    }
    this.nextTick = history.next_tick;
    return true;
  }

  column(name) {
    return this.values.get(name) ?? [];
  }

  // A column that is the sum of others; null where none of them is known.
  sum(names) {
    const columns = names.map((name) => this.column(name)).filter((column) => column.length);
    return this.times.map((_, i) => {
      const there = columns.map((column) => column[i]).filter(known);
      return there.length ? there.reduce((a, b) => a + b, 0) : null;
    });
  }

  // Index of the instant nearest to a time; -1 if there is none within 1.5 intervals.
  at(time_s, interval_s) {
    let best = -1;
    this.times.forEach((t, i) => {
      if (best < 0 || Math.abs(t - time_s) < Math.abs(this.times[best] - time_s)) best = i;
    });
    return best >= 0 && Math.abs(this.times[best] - time_s) <= 1.5 * interval_s ? best : -1;
  }
}
