// Chunks of OpenAI's stream folded into a message of the conversation, with its times. No network, no elements.

/** An answer that begins: what a message of the assistant holds. `status` ends as done, stopped or incomplete. */
export function blank(model) {
  return {
    role: "assistant",
    content: "",
    reasoning: "",
    calls: [],
    tokens: [],
    status: "streaming",
    error: "",
    finish: "",
    model,
    stats: {},
  };
}

/** What a browser reads at once comes this close together. */
const BURST_MS = 5;

export class Clock {
  #started = performance.now();
  #first = null;
  #content = null;
  #burst = 0;
  #since = 0;
  #before;

  /** `before`: tokens that the answer had when it was asked to go on. */
  constructor(before = 0) {
    this.#before = before;
  }

  /** Takes one chunk into `node`. */
  take(node, chunk) {
    const now = performance.now();
    const choice = chunk.choices?.[0];
    if (choice) this.#grow(node, choice, now);
    const stats = node.stats;
    if (chunk.usage) {
      // An answer that goes on is the end of its prompt.
      stats.prompt = chunk.usage.prompt_tokens - this.#before;
      stats.cached = chunk.usage.prompt_tokens_details?.cached_tokens ?? 0;
      stats.completion = chunk.usage.completion_tokens + this.#before;
    }
    const gained = (stats.completion ?? 0) - this.#before;
    stats.seconds = (now - this.#started) / 1000;
    if (this.#first !== null && gained) stats.rate = this.#rate(gained, now);
  }

  /** Without the wait for the first token, and without those that came together with it: they took that wait. */
  #rate(gained, now) {
    if (now - this.#first < BURST_MS) [this.#burst, this.#since] = [gained, now];
    const apart = gained > this.#burst && now - this.#since > BURST_MS;
    return apart ? (gained - this.#burst) / ((now - this.#since) / 1000) : gained / ((now - this.#started) / 1000);
  }

  #grow(node, choice, now) {
    const { content, reasoning_content: reasoning, tool_calls: calls } = choice.delta ?? {};
    if (content || reasoning || calls) {
      if (this.#first === null) {
        this.#first = now;
        node.stats.first ??= (now - this.#started) / 1000;
      }
      if (content && node.reasoning && this.#content === null) {
        this.#content = now;
        node.stats.thinking = (now - this.#first) / 1000;
      }
    }
    node.content += content ?? "";
    node.reasoning += reasoning ?? "";
    for (const call of calls ?? []) growCall(node, call);
    for (const token of choice.logprobs?.content ?? []) node.tokens.push(tokenOf(token));
    if (choice.finish_reason) node.finish = choice.finish_reason;
  }
}

function growCall(node, { index, id, function: called }) {
  const call = (node.calls[index ?? 0] ??= { id: "", name: "", args: "" });
  call.id ||= id ?? "";
  call.name += called?.name ?? "";
  call.args += called?.arguments ?? "";
}

const tokenOf = (token) => ({
  text: spelled(token),
  logprob: token.logprob,
  top: (token.top_logprobs ?? []).map(shortened),
});
const shortened = (token) => ({ text: spelled(token), logprob: token.logprob });

/** A token that is half a character, or hidden, is shown as its bytes. */
function spelled({ token, bytes }) {
  if (token && !token.includes("\ufffd")) return token;
  return `<${(bytes ?? []).map((byte) => byte.toString(16).padStart(2, "0")).join(" ")}>`;
}
