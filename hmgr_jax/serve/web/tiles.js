// Results as tiles: a thumbnail (or the caption), the name and the score.

import { address } from "./api.js";
import { make, shown } from "./dom.js";

export function tile(result, open, { about = true } = {}) {
  const name = shown(result.caption || result.id);
  const words = () => make("span", { class: "words" }, name);
  const image = make("img", { src: address(result.id, "/thumbnail"), alt: name, loading: "lazy" });
  image.addEventListener("error", () => image.replaceWith(words()), { once: true });
  const facts = about && make("span", { class: "about" },
    make("span", { class: "name", title: shown(result.id) }, name),
    result.score === undefined ? null : make("span", { class: "score" }, result.score.toFixed(3)));
  return make("button", { class: "tile", type: "button", title: name, onclick: () => open(result) },
    image, facts || null);
}

// Arrow keys move in a grid of tiles as they are laid out.
export function moveByArrows(grid) {
  grid.addEventListener("keydown", (event) => {
    const tiles = [...grid.querySelectorAll(".tile")];
    const at = tiles.indexOf(document.activeElement);
    if (at < 0) return;
    const first = tiles[0].getBoundingClientRect().top;
    const columns = tiles.filter((each) => each.getBoundingClientRect().top === first).length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    const next = step && tiles[at + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
}
