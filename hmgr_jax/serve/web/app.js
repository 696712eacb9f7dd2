// The page: what is asked, what is found, and what the address says of it.

import * as api from "./api.js";
import { find, make, shown } from "./dom.js";
import * as dialog from "./item.js";
import * as overview from "./overview.js";
import * as states from "./state.js";
import { moveByArrows, tile } from "./tiles.js";

const PAGE = 60;
const MOST = 1000;
let state = states.empty();
let can = {};
let found = [];
let k = PAGE;
let pending = null;

const asked = () => state.queries.find((query) => query.text !== undefined)?.text;
const address = (id) => ({ ...state, item: id });

function say(place, text) {
  find(place).textContent = text;
  find(place).hidden = !text;
}

function go(next, options) {
  state = next;
  states.write(state, options);
  render();
}

function open(id) { go(address(id)); }

const actions = {
  open,
  like: (id) => go({ ...state, queries: [{ id, weight: 1 }], item: null, tab: "search" }),
  add: (id) => go({ ...state, queries: [...state.queries, { id, weight: 1 }], item: null, tab: "search" }),
  step: (by) => {
    const at = found.findIndex((each) => each.id === state.item);
    const next = found[at + by];
    if (at >= 0 && next) go(address(next.id), { replace: true });
  },
};

// --- what is shown ---------------------------------------------------------------------------

let last = "";

function render() {
  renderQueries();
  for (const name of ["folder", "after", "before"]) find(`#${name}`).value = state.filters[name] ?? "";
  for (const name of ["search", "overview"]) {
    find(`#tab-${name}`).setAttribute("aria-pressed", String(state.tab === name));
  }
  find("#results").hidden = state.tab !== "search";
  find("#overview").hidden = state.tab !== "overview";
  document.title = asked() ? `${asked()} – search` : "Search";
  if (state.tab === "overview") {
    overview.show(open, can.version).catch((error) => say("#error", error.message));
  }
  if (state.item) dialog.show(state.item, asked(), can, actions);
  else dialog.close();
  const key = JSON.stringify([state.queries.map(({ file, ...rest }) => rest), state.filters]);
  if (key !== last) { k = PAGE; last = key; search(); }
}

function renderQueries() {
  const place = find("#queries");
  const several = state.queries.length > 1;
  const simple = state.queries.length === 1 && state.queries[0].text !== undefined;
  find("#box").value = simple ? state.queries[0].text : "";
  find("#box").placeholder = state.queries.length && !simple
    ? "Add a description to the search" : "Describe a picture, or drop one here";
  if (simple) { place.replaceChildren(); return; }
  const kept = [...place.children].map((each) => each.dataset.name).join("\n");
  const names = state.queries.map((query) => query.text ?? query.id ?? query.key);
  if (kept === names.join("\n") && several === !!place.querySelector("input")) return;
  place.replaceChildren(...state.queries.map((query, at) => chip(query, at, names[at], several)));
}

function chip(query, at, name, several) {
  const source = query.file ? URL.createObjectURL(query.file) : query.id && api.address(query.id, "/thumbnail");
  const value = make("output", {}, query.weight.toFixed(1));
  const slider = make("input", {
    type: "range", min: -1, max: 1, step: 0.1, value: query.weight,
    "aria-label": `Weight of ${shown(name)}`,
    oninput: () => { value.textContent = Number(slider.value).toFixed(1); },
    onchange: () => {
      const queries = state.queries.map((each, n) => (n === at ? { ...each, weight: Number(slider.value) } : each));
      go({ ...state, queries }, { replace: true });
    },
  });
  const remove = make("button", {
    class: "close", type: "button", title: "Remove", "aria-label": `Remove ${shown(name)}`,
    onclick: () => go({ ...state, queries: state.queries.filter((_, n) => n !== at) }),
  }, "×");
  const made = make("div", { class: "query" },
    source ? make("img", { src: source, alt: "" }) : null,
    make("span", { title: shown(name) }, query.file ? "this picture" : shown(name)),
    several ? slider : null, several ? value : null, remove);
  made.dataset.name = name;
  return made;
}

async function search() {
  pending?.abort();
  const grid = find("#grid");
  say("#error", "");
  say("#note", state.lost ? "The picture of this address is no longer here: drop it again." : "");
  if (!state.queries.length) { found = []; grid.replaceChildren(); find("#more").hidden = true; start(); return; }
  find("#start").hidden = true;
  pending = new AbortController();
  grid.classList.add("busy");
  try {
    const filters = Object.fromEntries(Object.entries(state.filters).filter(([, value]) => value));
    const answer = await api.search(state.queries, { k, ...filters }, pending.signal);
    found = answer.results;
    grid.replaceChildren(...found.map((each) => make("li", {}, tile(each, () => open(each.id)))));
    say("#note", answer.notes.join(" "));
    find("#more").hidden = found.length < k || k >= MOST || found.length >= answer.count;
    holds(answer.count);
    if (!found.length) nothing();
  } catch (error) {
    if (error.name === "AbortError") return;
    found = [];
    grid.replaceChildren();
    find("#more").hidden = true;
    say("#error", error.message);
  }
  grid.classList.remove("busy");
}

function nothing() {
  const place = find("#start");
  place.replaceChildren(make("h1", {}, "Nothing fits the filters"), make("p", {}, "Widen the dates or the folder."));
  place.hidden = false;
}

async function start() {
  const place = find("#start");
  place.hidden = false;
  place.replaceChildren(
    make("h1", {}, "What are you looking for?"),
    make("p", {}, "Type a sentence, drop or paste a picture, or begin with one of these. ", make("kbd", {}, "/"), " goes to the search box."));
  if (!can.ids) return;
  try {
    const { clusters } = await api.overview();
    if (state.queries.length) return;
    const grid = make("div", { class: "grid" });
    grid.append(...clusters.map(({ items: [id] }) => tile({ id, caption: "" }, () => open(id), { about: false })));
    moveByArrows(grid);
    place.append(grid);
  } catch { /* the hint is enough */ }
}

function holds(count) {
  find("#holds").textContent = `${count.toLocaleString()} ${can.modality === "image" ? "pictures" : "items"}`;
}

// --- what is done ----------------------------------------------------------------------------

find("#form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = find("#box").value.trim();
  const others = state.queries.length === 1 && state.queries[0].text !== undefined ? [] : state.queries;
  if (!text && !others.length) return;
  const queries = text ? [...others, { text, weight: 1 }] : others;
  last = "";
  go({ ...state, queries, item: null, tab: "search" });
});

function add(files) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/") || !file.type);
  if (!pictures.length) { say("#error", "That is no picture: drop a picture file."); return; }
  if (!can.pictures) { say("#error", "This model reads no picture files: describe the picture."); return; }
  const queries = pictures.map((file) => ({ key: states.keep(file), file, weight: 1 }));
  go({ ...state, queries: can.combined ? queries : queries.slice(0, 1), item: null, tab: "search" });
}

find("#file").addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
find("#choose").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") { event.preventDefault(); find("#file").click(); }
});
addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length) { event.preventDefault(); add(event.clipboardData.files); }
});
let inside = 0;
const dragged = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => { if (dragged(event)) { inside += 1; find("#drop").hidden = false; } });
addEventListener("dragleave", (event) => {
  if (dragged(event) && (inside -= 1) <= 0) { inside = 0; find("#drop").hidden = true; }
});
addEventListener("dragover", (event) => { if (dragged(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  if (!dragged(event)) return;
  event.preventDefault();
  inside = 0;
  find("#drop").hidden = true;
  add(event.dataTransfer.files);
});

for (const name of ["folder", "after", "before"]) {
  find(`#${name}`).addEventListener("change", (event) => {
    go({ ...state, filters: { ...state.filters, [name]: event.target.value } });
  });
}
find("#clear").addEventListener("click", () => go({ ...state, filters: {} }));
find("#toggle-filters").addEventListener("click", (event) => {
  const hidden = !find("#filters").hidden;
  find("#filters").hidden = hidden;
  event.target.setAttribute("aria-expanded", String(!hidden));
});
find("#tab-search").addEventListener("click", () => go({ ...state, tab: "search" }));
find("#tab-overview").addEventListener("click", () => go({ ...state, tab: "overview" }));
find("#more").addEventListener("click", () => { k = Math.min(MOST, k + PAGE); search(); });
find("#item").addEventListener("close", () => { if (state.item) go({ ...state, item: null }); });
find("#item").addEventListener("click", (event) => { if (event.target === find("#item")) find("#item").close(); });
moveByArrows(find("#grid"));

addEventListener("keydown", (event) => {
  const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName);
  if (event.key === "/" && !typing && !find("#item").open) { event.preventDefault(); find("#box").focus(); }
  if (find("#item").open && !document.activeElement?.closest(".strip")) {
    if (event.key === "ArrowLeft") actions.step(-1);
    if (event.key === "ArrowRight") actions.step(1);
  }
  if (event.key === "ArrowDown" && document.activeElement === find("#box")) {
    const first = find("#grid .tile");
    if (first) { event.preventDefault(); first.focus(); }
  }
});
addEventListener("popstate", () => { state = states.read(); render(); });

try {
  can = await api.health();
  holds(can.count);
  find("#choose").hidden = !can.pictures;
} catch (error) {
  say("#error", error.message);
}
state = states.read();
if (Object.keys(state.filters).length) find("#toggle-filters").click();
render();
if (!state.queries.length && !state.item) find("#box").focus();
