// This server's endpoints, and its failures as sentences. It knows HTTP; it knows no conversation and no element.
import { tab } from "./shelf.js";
import { events } from "./sse.js";

const KEY = "hexad.key";

/** The API key lives as long as the tab does. */
export const apiKey = { get: () => tab.get(KEY) ?? "", set: (key) => tab.set(KEY, key) };

/** `status` is the HTTP status, or 0 where no answer came. */
export class ServerError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

const BROKEN = "The connection broke before the answer was complete.";

/** Raises ServerError, or the AbortError of `signal`. A 401 is also told to the window, which asks for a key. */
async function request(path, { body, signal } = {}) {
  const headers = {};
  if (body) headers["Content-Type"] = "application/json";
  if (apiKey.get()) headers.Authorization = `Bearer ${apiKey.get()}`;
  let response;
  try {
    const method = body ? "POST" : "GET";
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server cannot be reached. Is it running?");
  }
  if (response.ok) return response;
  const error = await failure(response);
  if (response.status === 401) dispatchEvent(new Event("unauthorized"));
  throw error;
}

async function failure(response) {
  let message = "";
  try {
    message = (await response.json()).error.message;
  } catch {
    // Not this server's own words: a proxy's page, say.
  }
  return new ServerError(message || `The server answered ${response.status} ${response.statusText}.`, response.status);
}

export const getJson = async (path, options) => (await request(path, options)).json();
export const getText = async (path, options) => (await request(path, options)).text();

/**
 * The chunks of one streamed answer.
 * Returns when the server has said [DONE]; a stream that ends in any other way raises ServerError.
 */
export async function* chatChunks(body, signal) {
  const response = await request("/v1/chat/completions", { body, signal });
  let last = "";
  try {
    for await (const data of events(response.body)) {
      last = data;
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ServerError(chunk.error.message ?? BROKEN, 500);
      yield chunk;
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ServerError) throw error;
    throw new ServerError(BROKEN);
  }
  throw new ServerError(last === "" ? "The server ended the answer before it began." : BROKEN);
}
