// The engine, live: what /metrics says each second while the page is looked at.
import { getJson, getText } from "./api.js";
import { Chart } from "./chart.js";
import { h } from "./dom.js";
import { samples, totals } from "./prometheus.js";

const EVERY_MS = 1000;

const whole = (value) => Math.round(value).toLocaleString("en");
const share = (value) => `${(100 * value).toFixed(value > 0 && value < 0.1 ? 1 : 0)} %`;
const short = (value) => (value < 1 ? `${(1000 * value).toFixed(1)} ms` : `${value.toFixed(2)} s`);

/** `read(now, gained)` -> a value a line; `gained(name)` is the growth a second, null at first. */
const CHARTS = [
  [
    { title: "Requests", help: "Sequences in the engine", names: ["running", "waiting"], write: whole, least: 2 },
    (now) => [now("hexad:num_requests_running"), now("hexad:num_requests_waiting")],
  ],
  [
    { title: "KV pages", help: "Share of the KV pages that running sequences hold", write: share },
    (now) => [now("hexad:kv_cache_usage_perc")],
  ],
  [
    {
      title: "Tokens a second",
      help: "Generated, and all that went through the model (prompts too)",
      names: ["out", "all"],
      write: whole,
      least: 10,
    },
    (now, gained) => [gained("hexad:generation_tokens_total"), gained("hexad:computed_tokens_total")],
  ],
  [
    {
      title: "Tokens a step",
      help: "How many tokens, of all requests, one step takes through the model",
      write: (v) => v.toFixed(1),
      least: 4,
    },
    (now, gained) => [ratio(gained("hexad:computed_tokens_total"), gained("hexad:engine_steps_total"))],
  ],
  [
    {
      title: "Prefix hits",
      help: "Share of prompt tokens that were found in the cache",
      names: ["now", "ever"],
      write: share,
    },
    (now, gained) => [
      ratio(gained("hexad:prefix_cache_hits_total"), gained("hexad:prefix_cache_queries_total")),
      ratio(now("hexad:prefix_cache_hits_total"), now("hexad:prefix_cache_queries_total")),
    ],
  ],
  [
    { title: "First token", help: "Mean time from a request to its first token", write: short, least: 0.001 },
    (now, gained) => [mean(gained, "hexad:time_to_first_token_seconds")],
  ],
  [
    { title: "Between tokens", help: "Mean time between two tokens of an answer", write: short, least: 0.001 },
    (now, gained) => [mean(gained, "hexad:inter_token_latency_seconds")],
  ],
  [
    { title: "Preemptions a second", help: "Sequences put back to make room", write: (v) => v.toFixed(1) },
    (now, gained) => [gained("hexad:num_preemptions_total")],
  ],
];

const ratio = (part, all) => (part != null && all ? part / all : null);
const mean = (gained, name) => ratio(gained(`${name}_sum`), gained(`${name}_count`));

export class EnginePage {
  #timer = 0;
  #round = 0;
  #before = null;
  #visible = false;

  /** `model()` is the chosen model where there are several, else nothing. */
  constructor(element, model) {
    this.model = model;
    this.title = element.querySelector("h1");
    this.facts = h("dl", { class: "facts" });
    this.trouble = h("p", { class: "error", role: "status", hidden: true });
    this.charts = CHARTS.map(([options, read]) => ({ chart: new Chart(options), read }));
    this.rows = h("tbody");
    const head = h("thead", {}, h("tr", {}, h("th", {}, "metric"), h("th", {}, "labels"), h("th", {}, "value")));
    this.all = h(
      "details",
      {},
      h("summary", {}, "All metrics"),
      h("div", { class: "table", tabindex: "0" }, h("table", {}, head, this.rows)),
    );
    element.append(
      this.trouble,
      this.facts,
      h(
        "div",
        { class: "charts" },
        this.charts.map(({ chart }) => chart.element),
      ),
      this.all,
    );
    document.addEventListener("visibilitychange", () => this.#go());
  }

  show(visible) {
    this.#visible = visible;
    this.#go();
  }

  #go() {
    clearTimeout(this.#timer);
    this.#before = null;
    const round = (this.#round += 1);
    if (this.#visible && !document.hidden) this.#facts().finally(() => this.#poll(round));
  }

  /** A round ends when the page is left; another may have begun while this one waits for its answer. */
  async #poll(round) {
    const over = () => round !== this.#round;
    if (over()) return;
    try {
      const found = samples(await getText("/metrics"));
      if (!this.trouble.hidden) await this.#facts();
      if (over()) return;
      this.#take(found);
      this.trouble.hidden = true;
    } catch (error) {
      if (over()) return;
      this.trouble.textContent = error.message;
      this.trouble.hidden = false;
      // Nothing is known of it now.
      this.facts.replaceChildren();
      for (const { chart } of this.charts) chart.push(chart.values.map(() => null));
      this.#before = null;
    }
    this.#timer = setTimeout(() => this.#poll(round), EVERY_MS);
  }

  #take(found) {
    const [now, time] = [totals(found, this.model()), performance.now()];
    const before = this.#before;
    const gained = (name) => {
      if (now(name) === undefined) return 0;
      if (!before) return null;
      // A counter that fell was started anew.
      return Math.max(0, (now(name) - (before.now(name) ?? 0)) / ((time - before.time) / 1000));
    };
    for (const { chart, read } of this.charts) chart.push(read(now, gained).map((value) => value ?? null));
    this.#before = { now, time };
    this.#showRestarts(found);
    this.#showLoaded(found);
    if (this.all.open) this.#showAll(found);
  }

  #showRestarts(found) {
    const counted = found.filter(({ name }) => name.endsWith("restarts_total"));
    this.restarts.parentElement.hidden = !counted.length;
    this.restarts.textContent = whole(counted.reduce((sum, { value }) => sum + value, 0));
  }

  #showLoaded(found) {
    for (const [id, element] of this.states) {
      const loaded = found.find(({ name, labels }) => name === "hexad:model_loaded" && labels === `model_name="${id}"`);
      element.textContent = loaded?.value === 0 ? " \u00b7 not loaded" : "";
    }
  }

  #showAll(found) {
    const plain = found.filter(({ name }) => !name.endsWith("_bucket") && !name.endsWith("_created"));
    this.rows.replaceChildren(
      ...plain.map(({ name, labels, value }) =>
        h("tr", {}, h("td", {}, name), h("td", {}, labels), h("td", { class: "right" }, value.toLocaleString("en"))),
      ),
    );
  }

  async #facts() {
    this.title.textContent = ["Engine", this.model()].filter(Boolean).join(" \u00b7 ");
    const health = getJson("/health").then(
      () => "ready",
      (error) => error.message,
    );
    const version = getJson("/version").then(
      (found) => found.version,
      () => "unknown",
    );
    const models = getJson("/v1/models").then(
      (found) => found.data,
      () => [],
    );
    this.restarts = h("dd", {}, "\u2013");
    const facts = [
      ["Engine", await health],
      ["Hexad", await version],
    ];
    this.states = new Map();
    for (const { id, max_model_len: context } of await models) {
      this.states.set(id, h("span"));
      const about = `${id} \u00b7 context ${context?.toLocaleString("en") ?? "unknown"} tokens`;
      facts.push(["Model", about, this.states.get(id)]);
    }
    this.facts.replaceChildren(
      ...facts.map(([name, ...value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
      h("div", {}, h("dt", {}, "Restarts"), this.restarts),
    );
  }
}
