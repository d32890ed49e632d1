// How tokens are chosen: a form whose empty fields leave the model's defaults. It knows parameters, no endpoint.
import { h } from "./dom.js";
import { remembered } from "./shelf.js";

const STORED = "hexad.settings";
/** Above it, not every whole number is one of JavaScript's. */
const LARGEST = Number.MAX_SAFE_INTEGER;

const NUMBERS = [
  ["temperature", "Temperature", "0 always takes the likeliest token", { min: 0, max: 2, step: 0.05 }],
  ["top_p", "Top p", "Keep the likeliest tokens that make up this share", { min: 0.01, max: 1, step: 0.01 }],
  ["top_k", "Top k", "Keep this many of the likeliest tokens", { min: 0, max: LARGEST, step: 1 }],
  ["min_p", "Min p", "Drop tokens below this share of the likeliest", { min: 0, max: 1, step: 0.01 }],
  ["max_tokens", "Max tokens", "Longest answer", { min: 1, max: LARGEST, step: 1 }],
  ["seed", "Seed", "The same seed gives the same answer", { min: 0, max: LARGEST, step: 1 }],
  ["presence_penalty", "Presence penalty", "Against tokens already used", { min: -2, max: 2, step: 0.1 }],
  ["frequency_penalty", "Frequency penalty", "Against tokens used often", { min: -2, max: 2, step: 0.1 }],
  ["repetition_penalty", "Repetition penalty", "Above 1: against any repetition", { min: 0.1, max: 2, step: 0.05 }],
  ["probabilities", "Probabilities", "Likeliest tokens to show for each token", { min: 0, max: 20, step: 1 }],
];

export class Settings {
  #values = stored();

  /** What a request carries beside its messages. */
  parameters() {
    const { probabilities, thinking, ...given } = this.#values;
    if (probabilities !== undefined) Object.assign(given, { logprobs: true, top_logprobs: probabilities });
    if (thinking) given.chat_template_kwargs = { enable_thinking: thinking === "on" };
    return given;
  }

  #set(name, value) {
    if (value === undefined || value === "") delete this.#values[name];
    else this.#values[name] = value;
    remembered.set(STORED, JSON.stringify(this.#values));
  }

  /** Fills `form`. A number out of its range is not sent, and its field says so. */
  show(form) {
    const reset = h(
      "button",
      { type: "button", class: "plain", onclick: () => this.#reset(form) },
      "Use the model's defaults",
    );
    form.replaceChildren(
      h(
        "div",
        { class: "fields" },
        NUMBERS.map((row) => this.#number(row)),
      ),
      this.#thinking(),
      reset,
    );
  }

  #reset(form) {
    for (const name of Object.keys(this.#values)) this.#set(name, undefined);
    this.show(form);
  }

  #number([name, label, help, limits]) {
    const input = h("input", {
      type: "number",
      name,
      id: `set-${name}`,
      placeholder: name === "probabilities" ? "off" : "default",
      value: this.#values[name] ?? "",
      "aria-describedby": `help-${name}`,
      ...limits,
      step: "any",
    });
    if (limits.step === 1) input.step = 1;
    const about = h("small", { id: `help-${name}` }, help);
    input.addEventListener("input", () => {
      const fits = input.checkValidity();
      this.#set(name, fits && input.value !== "" ? Number(input.value) : undefined);
      input.ariaInvalid = String(!fits);
      about.classList.toggle("bad", !fits);
      about.textContent = fits ? help : `Not used: ${allowed(limits)}`;
    });
    return h("label", { for: `set-${name}` }, h("span", {}, label), input, about);
  }

  #thinking() {
    const options = [
      ["", "the model's default"],
      ["on", "on"],
      ["off", "off"],
    ];
    const choice = h(
      "select",
      { id: "set-thinking" },
      options.map(([value, label]) => h("option", { value }, label)),
    );
    choice.value = this.#values.thinking ?? "";
    choice.addEventListener("change", () => this.#set("thinking", choice.value));
    return h(
      "label",
      { for: "set-thinking" },
      h("span", {}, "Thinking"),
      choice,
      h("small", {}, "For models whose template can switch it"),
    );
  }
}

const allowed = ({ min, max, step }) =>
  `${step === 1 ? "a whole number" : "a number"} from ${min} to ${max.toLocaleString("en")}`;

/** What was chosen last. Where that cannot be read, the model's defaults are. */
function stored() {
  try {
    return { ...JSON.parse(remembered.get(STORED)) };
  } catch {
    return {};
  }
}
