// What the page asks of the server: one call, its retries, and the same call written for curl.

export const BASE = new URL("../", import.meta.url); // the page may live behind a path prefix

const RETRIES = 40;
const PATIENCE_S = 60;

export class Failure extends Error {
  constructor(message, facts) {
    super(message);
    Object.assign(this, facts); // code, status, requestId, retryAfterS
  }
}

const unreachable = () => new Failure("The server could not be reached, or it hung up. Check the network and try again.", { code: "network_failure" });

/** A module that is being imported. Throws a Failure where it did not come; asked for anew, it may. */
export const imported = (module) => module.catch((error) => { throw error instanceof TypeError ? unreachable() : error; });

/** fetch() under BASE: the Response when it is good, else throws a Failure. */
export async function call(path, { key, ...init } = {}) {
  const headers = { Accept: "application/json", ...init.headers, ...(key && { "X-API-Key": key }) };
  const response = await fetch(new URL(path, BASE), { ...init, headers }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  });
  if (response.ok) return response;
  const { error = {} } = await response.json().catch(() => ({})); // a proxy in between may answer in its own words
  throw new Failure(error.message ?? `The server answered ${response.status} ${response.statusText}`, {
    code: error.code ?? "unexpected_answer",
    status: response.status,
    requestId: error.request_id ?? response.headers.get("X-Request-Id"),
    retryAfterS: seconds(response.headers.get("Retry-After")),
  });
}

/** Retry-After is a number of seconds or a date. */
function seconds(header) {
  const value = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return value >= 0 ? Math.max(1, Math.ceil(value)) : null;
}

/** Calls again while the server says 429 or 503 with Retry-After; `onWait(failure, secondsLeft)` each second. */
export async function patiently(attempt, signal, onWait) {
  for (let tries = 1; ; tries++) {
    try {
      return await attempt();
    } catch (failure) {
      const again = [429, 503].includes(failure.status) && failure.retryAfterS && failure.code !== "model_broken";
      if (!again || tries > RETRIES) throw failure;
      for (let left = Math.min(failure.retryAfterS, PATIENCE_S); left > 0; left--) {
        onWait(failure, left);
        await new Promise((resolve) => setTimeout(resolve, 1000));
        signal.throwIfAborted();
      }
    }
  }
}

/** The path and fetch options that send `source` ({blob} or {url}) with `parameters` in the query. */
export function request(source, endpoint, parameters) {
  if (source.url) return { path: `${endpoint}?${new URLSearchParams({ image_url: source.url, ...parameters })}` };
  const headers = { "Content-Type": typeOf(source) };
  return { path: withQuery(endpoint, parameters), method: "POST", body: source.blob, headers };
}

export const withQuery = (target, parameters) => [target, new URLSearchParams(parameters)].filter(String).join("?");

// Any other type would be refused by its name; as octet-stream, the bytes themselves are judged.
export const typeOf = ({ blob }) => (blob.type.startsWith("image/") ? blob.type : "application/octet-stream");
