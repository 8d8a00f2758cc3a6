// Numbers in words, and elements. Text only ever becomes text: nothing that was read is HTML.

const UNKNOWN = "–";

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function draw(tag, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// Writing the same text again would lose a reader's selection.
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function known(value) {
  return value !== null && value !== undefined;
}

function digits(value) {
  if (value >= 100 || Number.isInteger(value)) return Math.round(value).toLocaleString("en");
  return value >= 10 ? value.toFixed(1) : value.toFixed(2).replace(/0$/, "");
}

const words = {
  count: (v) => (known(v) ? digits(v) : UNKNOWN),
  rate: (v) => (known(v) ? `${digits(v)}/s` : UNKNOWN),
  ratio: (v) => (known(v) ? `${Math.round(v * 100)} %` : UNKNOWN),
  celsius: (v) => (known(v) ? `${Math.round(v)} °C` : UNKNOWN),
  watts: (v) => (known(v) ? `${Math.round(v)} W` : UNKNOWN),
  seconds: (v) => {
    if (!known(v)) return UNKNOWN;
    if (v === 0) return "0 s";
    if (v < 0.001) return `${Math.round(v * 1e6)} µs`;
    if (v < 1) return `${digits(v * 1000)} ms`;
    return v < 120 ? `${digits(v)} s` : `${digits(v / 60)} min`;
  },
  bytes: (v) => {
    if (!known(v)) return UNKNOWN;
    let unit = 0;
    for (; v >= 1024 && unit < 5; unit += 1) v /= 1024;
    return `${digits(v)} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit]}`;
  },
};

function clock(time_s, seconds = true) {
  const options = { hour: "2-digit", minute: "2-digit", hour12: false };
  if (seconds) options.second = "2-digit";
  return new Date(time_s * 1000).toLocaleTimeString([], options);
}

// The least of 1, 2, 4, 6, 8 × 10^n (binary: 2^n) at or above a value: axes end on round numbers, and
// half of one is whole where it counts.
function roundUp(value, binary) {
  if (binary) return 2 ** Math.ceil(Math.log2(value));
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].find((step) => step * unit >= value * 0.999999) * unit;
}
