// Chunks of OpenAI's stream folded into a message of the conversation, with its times. No network, no elements.

/** An answer that begins: what a message of the assistant holds. `status` ends as done, stopped or incomplete. */
export function blank(model) {
  return { role: "assistant", content: "", reasoning: "", calls: [], tokens: [], status: "streaming", error: "", finish: "", model, stats: {} };
}

export class Clock {
  #started = performance.now();
  #first = null;
  #content = null;
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
      stats.prompt = chunk.usage.prompt_tokens;
      stats.cached = chunk.usage.prompt_tokens_details?.cached_tokens ?? 0;
      stats.completion = chunk.usage.completion_tokens + this.#before;
    }
    const gained = (stats.completion ?? 0) - this.#before;
    stats.seconds = (now - this.#started) / 1000;
    // The first token is not decoding: its time is the time to first token.
    if (this.#first !== null && gained > 1 && now > this.#first) stats.rate = (gained - 1) / ((now - this.#first) / 1000);
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

const tokenOf = (token) => ({ text: spelled(token), logprob: token.logprob, top: (token.top_logprobs ?? []).map(shortened) });
const shortened = (token) => ({ text: spelled(token), logprob: token.logprob });

/** A token that is half a character, or hidden, is shown as its bytes. */
function spelled({ token, bytes }) {
  if (token && !token.includes("\ufffd")) return token;
  return `<${(bytes ?? []).map((byte) => byte.toString(16).padStart(2, "0")).join(" ")}>`;
}
