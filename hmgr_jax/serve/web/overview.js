// What the index holds: a map of pictures in two dimensions, and a contact sheet by cluster.

import * as api from "./api.js";
import { find, make, shown } from "./dom.js";
import { moveByArrows, tile } from "./tiles.js";

const COLUMNS = 20;
const hue = (cluster, count) => `hsl(${Math.round((360 * cluster) / count)} 62% 52%)`;
let version = null;

export async function show(open, now) {
  const place = find("#overview");
  if (version === now && place.children.length) return;
  place.replaceChildren(make("p", { class: "empty" }, "Looking at all of it …"));
  const found = await api.overview();
  version = now;
  const count = found.clusters.length;
  const some = found.shown < found.count ? `, a sample of ${found.shown.toLocaleString()}` : "";
  const clusters = found.clusters.map((cluster, number) => {
    const dot = make("span", { class: "dot" });
    dot.style.background = hue(number, count);
    const strip = make("div", { class: "strip" });
    strip.append(...cluster.items.map((id) => tile({ id, caption: "" }, () => open(id), { about: false })));
    moveByArrows(strip);
    return make("div", { class: "cluster" }, make("b", {}, dot, cluster.count.toLocaleString()), strip);
  });
  place.replaceChildren(
    make("h2", {}, `Map of ${found.count.toLocaleString()} items${some}: near means alike`),
    map(found.points, count, open),
    make("h2", {}, "Clusters, and what is typical of each"),
    ...clusters);
}

// One picture for every cell that holds some, so that none hides another.
function map(points, count, open) {
  const place = make("div", { class: "map" });
  const narrow = matchMedia("(max-width: 640px)").matches;
  const [columns, rows] = narrow ? [10, 13] : [COLUMNS, 11];
  const cells = new Map();
  for (const point of points) {
    const cell = (value, size) => Math.min(size - 1, Math.floor(((value + 1) / 2) * size));
    const key = cell(point.x, columns) + columns * cell(-point.y, rows);
    if (!cells.has(key)) cells.set(key, point);
  }
  for (const [key, point] of cells) {
    const name = shown(point.id);
    const image = make("img", { src: api.address(point.id, "/thumbnail"), alt: name, loading: "lazy" });
    image.addEventListener("error", () => image.remove(), { once: true });
    const button = make("button", { type: "button", title: name, onclick: () => open(point.id) }, image);
    button.style.left = `${(100 * ((key % columns) + 0.5)) / columns}%`;
    button.style.top = `${(100 * (Math.floor(key / columns) + 0.5)) / rows}%`;
    button.style.borderColor = hue(point.cluster, count);
    place.append(button);
  }
  return place;
}
