// All heads at once: small pictures of who reads whom, or one measure of each head as its colour.
import { ink, legend, pixels, shade } from "../colors";
import { button, choice, h, whenIdle } from "../dom";
import { figure } from "../frame";
import { roving } from "../roving";
import { exact, short } from "../text";
import { onTheme } from "../theme";
import { hideTip, tipAt } from "../tip";
import type { Value } from "../types";
import type { Grid } from "./grid";
import type { Context, Tab } from "./panel";
import { allowed, type State } from "./state";

/** Pixels along a small picture; of the weights under a pixel it shows the largest. */
const SMALL = 64;

interface Tile {
  layer: number;
  head: number;
  button: HTMLButtonElement;
  canvas: HTMLCanvasElement;
  value: HTMLElement;
}

export function overviewView({ panel, store, headNumbers, grid, open }: Context): Tab {
  const measures = Object.keys(panel.measures);
  const values = (name: string): Value[][] => (store.now.joined ? panel.word_measures : panel.measures)[name];
  let measure = -1;
  let stop: () => void = () => undefined;
  const table = h("div", {
    class: "tiles",
    role: "group",
    "aria-label": "Heads: a row for each layer, a column for each head",
  });
  table.style.setProperty("--heads", String(panel.heads.length));
  table.append(
    h("span", { class: "corner" }, "layer"),
    ...headNumbers.map((number) => h("span", { class: "number" }, String(number))),
  );
  const tiles: Tile[] = [];
  panel.layers.forEach((number, layer) => {
    table.append(h("span", { class: "number" }, String(number)));
    headNumbers.forEach((name, head) => {
      const canvas = h("canvas", { "aria-hidden": "true" });
      const value = h("span", { class: "value", "aria-hidden": "true" });
      const each = button(canvas, { class: "tile" }, () => open(layer, head));
      each.append(value);
      const tip = (): void => {
        const lines = measures.map((key) =>
          h("span", { class: "pair" }, h("span", { class: "faint" }, key), exact(values(key)[layer][head])),
        );
        tipAt(each, [h("b", {}, `layer ${number}, head ${name}`), ...lines]);
      };
      each.addEventListener("pointerenter", tip);
      each.addEventListener("focus", () => each.matches(":focus-visible") && tip());
      each.addEventListener("pointerleave", hideTip);
      each.addEventListener("blur", hideTip);
      each.addEventListener("click", hideTip);
      table.append(each);
      tiles.push({ layer, head, button: each, canvas, value });
    });
  });
  roving(
    table,
    tiles.map((tile) => tile.button),
    panel.heads.length,
  );
  const under = h("div", { class: "under" });
  const what = choice(
    "Show",
    [[-1, "patterns"], ...measures.map((name, at) => [at, name] as [number, string])],
    -1,
    (value) => {
      measure = value;
      paint();
    },
  );
  const hint = h(
    "p",
    { class: "axes" },
    "rows are layers, columns are heads \u00B7 each pattern on its own scale \u00B7 choose one to open it as a matrix",
  );
  const root = h(
    "div",
    {},
    h("div", { class: "choices" }, what.root, hint),
    figure("All heads of all layers", h("div", { class: "across" }, table)),
    under,
  );

  const paint = (): void => {
    stop();
    const shown = measure < 0 ? [] : values(measures[measure]);
    const finite = shown.flat().filter((value): value is number => value !== null);
    const [low, high] = finite.length ? [Math.min(...finite), Math.max(...finite)] : [0, 1];
    for (const tile of tiles) {
      const value = measure < 0 ? null : shown[tile.layer][tile.head];
      const said = measure < 0 ? "" : `: ${measures[measure]} ${exact(value)}`;
      tile.button.setAttribute(
        "aria-label",
        `layer ${panel.layers[tile.layer]}, head ${headNumbers[tile.head]}${said}`,
      );
      tile.canvas.hidden = measure >= 0;
      tile.value.textContent = value === null ? "" : short(value);
      const back = value === null ? "" : shade("rising", (value - low) / (high - low || 1));
      tile.button.style.backgroundColor = back;
      tile.button.style.color = back ? ink(back) : "";
    }
    if (measure >= 0) {
      const units = h("p", { class: "axes" }, `measured between ${store.now.joined ? "words" : "tokens"}`);
      under.replaceChildren(legend("rising", low, high, measures[measure]), units);
      return;
    }
    under.replaceChildren();
    const colors = pixels("rising");
    const [now, chosen] = [grid(), store.now];
    stop = whenIdle(tiles.length, (at) => thumbnail(tiles[at], now, chosen, colors));
  };
  onTheme(paint);
  const seen = ["joined", "segment", "threshold"] as const;
  return { root, draw: (changed) => seen.some((name) => changed.has(name)) && paint() };
}

/** Draws one head small: the largest weight under each pixel, on a square-root scale up to the head's own largest. */
function thumbnail(tile: Tile, grid: Grid, { segment, threshold }: State, colors: Uint32Array): void {
  const units = grid.units;
  const size = units.length;
  const side = Math.min(size, SMALL);
  const weights = grid.matrix(tile.layer, tile.head);
  const largest = new Float32Array(side * side);
  let most = 0;
  for (let row = 0, at = 0; row < size; row++) {
    const line = Math.floor((row * side) / size) * side;
    for (let column = 0; column < size; column++, at++) {
      const weight = weights[at];
      const place = line + Math.floor((column * side) / size);
      if (weight <= largest[place] || weight < threshold) continue;
      if (segment !== "all" && !allowed(segment, units[row].source, units[column].source)) continue;
      largest[place] = weight;
      if (weight > most) most = weight;
    }
  }
  const image = new ImageData(side, side);
  const pixels = new Uint32Array(image.data.buffer);
  const top = 255 / Math.sqrt(most || 1);
  largest.forEach((weight, at) => {
    pixels[at] = colors[Math.round(Math.sqrt(weight) * top)];
  });
  tile.canvas.width = side;
  tile.canvas.height = side;
  tile.canvas.getContext("2d")?.putImageData(image, 0, 0);
}
