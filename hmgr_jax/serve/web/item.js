// One item, large: where each word of the query looks in it, and its neighbours.

import * as api from "./api.js";
import { draw, find, make, shown } from "./dom.js";
import { moveByArrows, tile } from "./tiles.js";

const NEIGHBOURS = 12;
const MARKS = /^<.*>$/;
let pending = null;

export function close() {
  pending?.abort();
  const dialog = find("#item");
  if (dialog.open) dialog.close();
}

// `actions`: {open, like, add, step} of the page; `can`: what the server offers.
export async function show(id, sentence, can, actions) {
  pending?.abort();
  pending = new AbortController();
  const { signal } = pending;
  const dialog = find("#item");
  const side = make("div", { class: "side" });
  const stage = make("div", { class: "stage" });
  const near = make("div", { class: "near" });
  const step = (by, name, sign) => make("button", {
    class: "close", title: name, "aria-label": name, onclick: () => actions.step(by),
  }, sign);
  dialog.replaceChildren(
    make("div", { class: "top" },
      make("h2", { id: "item-title" }, shown(id)), step(-1, "Previous result", "‹"),
      step(1, "Next result", "›"),
      make("button", {
        class: "close", title: "Close", "aria-label": "Close", onclick: () => dialog.close(),
      }, "×")),
    make("div", { class: "item" }, stage, side), near);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  try {
    const found = await api.item(id);
    if (signal.aborted) return;
    picture(stage, found);
    facts(side, found, can, actions);
    await Promise.all([
      sentence && can.explains ? explanation(stage, side, id, sentence, signal) : null,
      can.ids ? neighbours(near, id, actions, signal) : null,
    ]);
  } catch (error) {
    if (!signal.aborted) side.append(make("p", { role: "alert" }, error.message));
  }
}

function picture(stage, found) {
  const name = shown(found.caption || found.id);
  const image = make("img", { src: api.address(found.id, "/picture"), alt: name });
  // The stage has the shape of the picture, so that the cover over it fits.
  image.addEventListener("load", () => {
    const { naturalWidth: width, naturalHeight: height } = image;
    stage.style.aspectRatio = `${width} / ${height}`;
    stage.style.width = `min(100%, ${Math.max(560, width)}px, calc(${width / height} * min(66dvh, 720px)))`;
  });
  image.addEventListener("error", () => stage.replaceChildren(make("p", { class: "empty" }, name)));
  stage.append(image);
}

function facts(side, found, can, actions) {
  if (found.caption) side.append(make("p", {}, shown(found.caption)));
  const day = found.date && `File of ${found.date}`;
  if (day) side.append(make("p", { class: "fact" }, day));
  if (!can.ids) return;
  side.append(make("div", { class: "actions" },
    make("button", { class: "button", onclick: () => actions.like(found.id) }, "More like this"),
    can.combined
      ? make("button", { class: "button", onclick: () => actions.add(found.id) }, "Add to the search")
      : null));
}

async function neighbours(near, id, actions, signal) {
  const found = await api.search([{ id, weight: 1 }], { k: NEIGHBOURS }, signal);
  if (signal.aborted || !found.results.length) return;
  const strip = make("div", { class: "strip" });
  strip.append(...found.results.map((each) => tile(each, () => actions.open(each.id), { about: false })));
  moveByArrows(strip);
  near.append(make("h3", {}, "Nearest to it"), strip);
}

async function explanation(stage, side, id, sentence, signal) {
  const title = make("h3", {}, "Where the words look");
  const state = make("p", { class: "fact" }, "Reading the picture …");
  side.append(title, state);
  let found;
  try {
    found = await api.explain(sentence, id, signal);
  } catch (error) {
    if (!signal.aborted) state.textContent = error.message;
    return;
  }
  if (signal.aborted) return;
  const light = veil(stage, found.boxes);
  const words = make("div", { class: "wordlist" });
  let map = found.maps.at(-1);
  let chosen = null;
  const press = (button, weights) => {
    const again = chosen === button;
    chosen?.setAttribute("aria-pressed", "false");
    chosen = again ? null : button;
    chosen?.setAttribute("aria-pressed", "true");
    light(again ? null : weights());
  };
  found.words.forEach(({ word, weight }, place) => {
    if (MARKS.test(word)) return;
    const unknown = found.unknown.includes(word);
    const share = weight === null ? "" : `, ${Math.round(100 * weight)}% of the query`;
    const button = make("button", {
      class: unknown ? "word unknown" : "word", type: "button", "aria-pressed": "false",
      title: unknown ? "not in the vocabulary" : `${shown(word)}${share}`,
      onclick: () => press(button, () => map.words[place]),
    }, shown(word));
    if (weight !== null) button.style.borderBottomWidth = `${1 + Math.round(10 * weight)}px`;
    words.append(button);
  });
  if (found.regions) {
    const all = make("button", {
      class: "word", type: "button", "aria-pressed": "false",
      title: "weights of the regions in the picture's vector",
      onclick: () => press(all, () => found.regions),
    }, "all words");
    words.append(all);
  }
  if (found.maps.length > 1) {
    const steps = make("div", { class: "steps", role: "group", "aria-label": "Matching step" });
    found.maps.forEach((each) => steps.append(make("button", {
      class: "word", type: "button", "aria-pressed": String(each === map),
      onclick: (event) => {
        map = each;
        for (const one of steps.children) one.setAttribute("aria-pressed", String(one === event.target));
        if (chosen) { const again = chosen; chosen = null; again.click(); }
      },
    }, each.name)));
    words.before(steps);
    side.append(steps);
  }
  state.textContent = found.regions
    ? "Bright: regions that score high with this word alone. A thicker line: more weight in the query."
    : "Bright: regions that the word attends to.";
  side.append(words);
}

// A dark cover over the picture that lets regions through by their weights.
function veil(stage, boxes) {
  const holes = boxes.map(([left, top, right, bottom]) => draw("rect", {
    x: left, y: top, width: right - left, height: bottom - top, fill: "black", "fill-opacity": 0,
  }));
  const blur = draw("filter", { id: "soft", x: "-5%", y: "-5%", width: "110%", height: "110%" },
    draw("feGaussianBlur", { stdDeviation: 0.03 }));
  const mask = draw("mask", { id: "veil", maskUnits: "userSpaceOnUse", x: 0, y: 0, width: 1, height: 1 },
    draw("rect", { width: 1, height: 1, fill: "white" }), draw("g", { filter: "url(#soft)" }, ...holes));
  const cover = draw("rect", { width: 1, height: 1, fill: "#05070c", "fill-opacity": 0.82, mask: "url(#veil)" });
  const svg = draw("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" },
    draw("defs", {}, blur, mask), cover);
  return (weights) => {
    if (!weights) { svg.remove(); return; }
    const [low, most] = [Math.min(...weights), Math.max(...weights)];
    holes.forEach((hole, n) => {
      const share = most > low ? (weights[n] - low) / (most - low) : 0;
      hole.setAttribute("fill-opacity", share ** 1.3);
    });
    stage.append(svg);
  };
}
