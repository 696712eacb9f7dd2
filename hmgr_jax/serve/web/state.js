// What the page shows, and its address: the history of the browser leads back to it.

const FILTERS = ["folder", "after", "before"];

// Pictures of queries cannot be part of an address; they are kept while the page is open.
const files = new Map();

export function keep(file) {
  const key = `${file.name || "picture"} ${files.size + 1}`;
  files.set(key, file);
  return key;
}

export const empty = () => ({ queries: [], filters: {}, item: null, tab: "search" });

export function read() {
  const found = empty();
  const given = new URLSearchParams(location.search);
  const weights = given.getAll("w").map(Number);
  for (const [kind, value] of given) {
    const weight = Number.isFinite(weights[found.queries.length]) ? weights[found.queries.length] : 1;
    if (kind === "q") found.queries.push({ text: value, weight });
    if (kind === "like") found.queries.push({ id: value, weight });
    if (kind === "picture") {
      found.queries.push({ key: value, file: files.get(value), weight });
    }
    if (FILTERS.includes(kind)) found.filters[kind] = value;
    if (kind === "item") found.item = value;
    if (kind === "tab") found.tab = value;
  }
  found.lost = found.queries.some((query) => query.key && !query.file);
  found.queries = found.queries.filter((query) => !query.key || query.file);
  return found;
}

export function write(state, { replace = false } = {}) {
  const given = new URLSearchParams();
  for (const query of state.queries) {
    if (query.text !== undefined) given.append("q", query.text);
    else if (query.id !== undefined) given.append("like", query.id);
    else given.append("picture", query.key);
  }
  if (state.queries.some((query) => query.weight !== 1)) {
    for (const query of state.queries) given.append("w", query.weight);
  }
  for (const name of FILTERS) if (state.filters[name]) given.append(name, state.filters[name]);
  if (state.tab !== "search") given.append("tab", state.tab);
  if (state.item) given.append("item", state.item);
  const address = given.size ? `?${given}` : location.pathname;
  history[replace ? "replaceState" : "pushState"](null, "", address);
}
