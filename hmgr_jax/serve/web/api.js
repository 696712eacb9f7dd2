// Requests to the server. Every answer is JSON; an error carries one sentence.

export class Refused extends Error {}

async function read(response) {
  let found = null;
  try { found = await response.json(); } catch { /* not JSON */ }
  if (response.ok && found !== null) return found;
  throw new Refused(found?.error ?? `The server answered ${response.status}.`);
}

async function ask(path, options) {
  try {
    return await read(await fetch(path, options));
  } catch (error) {
    if (error instanceof Refused || error.name === "AbortError") throw error;
    throw new Refused("The server does not answer: is it still running?");
  }
}

export const health = () => ask("/api/health");
export const overview = () => ask("/api/overview");
export const item = (id) => ask(address(id));
export const explain = (query, id, signal) =>
  ask(`/api/explain?${new URLSearchParams({ query, id })}`, { signal });
export const address = (id, part = "") => `/api/items/${encodeURIComponent(id)}${part}`;

// Queries are {text} | {id} | {file}, each with a weight.
export function search(queries, options, signal) {
  const files = queries.filter((query) => query.file).map((query) => query.file);
  const asked = {
    ...options,
    queries: queries.map(({ text, id, file, weight }) => {
      if (file) return { upload: files.indexOf(file), weight };
      return text === undefined ? { id, weight } : { text, weight };
    }),
  };
  if (!files.length) {
    const headers = { "Content-Type": "application/json" };
    return ask("/api/search", { method: "POST", headers, body: JSON.stringify(asked), signal });
  }
  const form = new FormData();
  form.append("request", JSON.stringify(asked));
  for (const file of files) form.append("picture", file, "picture");
  return ask("/api/search", { method: "POST", body: form, signal });
}
