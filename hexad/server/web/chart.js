// A number over the last minutes as a line. It knows no metric.
import { h, svg } from "./dom.js";

const LENGTH = 120;
const [WIDTH, HEIGHT] = [240, 56];

export class Chart {
  #lines;

  /** `names` of the lines, `write` a value as text, `least` the smallest top of the scale. */
  constructor({ title, help, names = [""], write = String, least = 1 }) {
    Object.assign(this, { title, write, least });
    this.#lines = names.map(() => []);
    this.values = names.map((name) => [h("strong", {}, "\u2013"), name]);
    const value = h(
      "div",
      { class: "value" },
      this.values.map(([number, name], index) =>
        h("span", { class: `line${index}` }, number, name && h("small", {}, ` ${name}`)),
      ),
    );
    this.paths = names.map((_, index) => svg("path", { class: `line${index}` }));
    this.area = svg("path", { class: "area" });
    this.top = h("small", { title: "The top of the scale" });
    const about = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" };
    const plot = h("div", { class: "plot" }, svg("svg", about, this.area, ...this.paths));
    this.element = h(
      "section",
      { class: "chart", title: help },
      h("div", { class: "charthead" }, h("h2", {}, title), this.top),
      value,
      plot,
    );
  }

  /** Adds a moment: a value a line; null leaves a gap. */
  push(values) {
    values.forEach((value, index) => {
      const line = this.#lines[index];
      line.push(value);
      if (line.length > LENGTH) line.shift();
      this.values[index][0].textContent = value === null ? "\u2013" : this.write(value);
    });
    const top = Math.max(this.least, ...this.#lines.flat());
    this.top.textContent = `\u2191 ${this.write(top)}`;
    this.#lines.forEach((line, index) => this.paths[index].setAttribute("d", stretches(line, top).map(drawn).join("")));
    this.area.setAttribute("d", stretches(this.#lines[0], top).map(filled).join(""));
  }
}

const x = (index, count) => WIDTH - (count - 1 - index) * (WIDTH / (LENGTH - 1));
const y = (value, top) => HEIGHT - 1.5 - (value / top) * (HEIGHT - 4);

/** The stretches of a line between its gaps, as points [x, y]. */
function stretches(line, top) {
  const found = [[]];
  line.forEach((value, index) => {
    if (value === null) found.push([]);
    else found.at(-1).push([x(index, line.length).toFixed(1), y(value, top).toFixed(1)]);
  });
  return found.filter((points) => points.length);
}

const drawn = (points) => `M${points.map((point) => point.join(" ")).join("L")}`;
const filled = (points) => `${drawn(points)}V${HEIGHT}H${points[0][0]}Z`;
