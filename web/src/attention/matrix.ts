// One head as a map: rows read, columns are read.
import { Cells } from "../cells";
import { legend, pixels } from "../colors";
import { choice, h, say } from "../dom";
import { figure } from "../frame";
import { four, plain, token } from "../text";
import type { Context, Tab } from "./panel";
import { allowed } from "./state";

export function matrixView({ panel, store, headNumbers, grid, found }: Context): Tab {
  const layer = choice(
    "Layer",
    panel.layers.map((number, at) => [at, String(number)] as const),
    store.now.layer,
    (value) => store.set({ layer: value }),
  );
  const head = choice(
    "Head",
    headNumbers.map((number, at) => [at, String(number)] as const),
    store.now.head,
    (value) => store.set({ head: value }),
  );
  const cells = new Cells(`Attention weights of one head: rows read, columns are read`, true);
  const zoom = choice(
    "Zoom",
    [1, 2, 4, 8, 16].map((times) => [times, `${times}\u00D7`] as const),
    1,
    (times) => cells.zoom(times),
  );
  const readout = h("div", { class: "readout" });
  const under = h("div");
  const side = h("aside", { class: "side", "aria-label": "The cell in numbers" }, readout, under);
  const place = figure("Attention matrix", cells.root);
  const root = h(
    "div",
    {},
    h("div", { class: "choices" }, layer.root, head.root, zoom.root),
    h("div", { class: "split" }, place, side),
  );

  const draw = (): void => {
    const { layer: at, head: which, threshold, segment } = store.now;
    layer.show(at);
    head.show(which);
    const { units, matrix } = grid();
    const weights = matrix(at, which);
    const size = units.length;
    const names = units.map((unit) => plain(unit.text));
    const visible = (index: number, row: number, column: number): boolean =>
      weights[index] >= threshold && (segment === "all" || allowed(segment, units[row].source, units[column].source));
    let most = 0;
    for (let row = 0, index = 0; row < size; row++) {
      for (let column = 0; column < size; column++, index++)
        if (weights[index] > most && visible(index, row, column)) most = weights[index];
    }
    const name = `layer ${panel.layers[at]}, head ${headNumbers[which]}`;
    place.setAttribute("aria-label", `Attention of ${name}: ${size} by ${size}, rows read, columns are read`);
    const marked = found();
    cells.show({
      rows: names,
      columns: names,
      counted: true,
      found: { rows: marked, columns: marked },
      paint: (painted) => {
        const colors = pixels("rising");
        const top = 255 / Math.sqrt(most || 1);
        for (let row = 0, index = 0; row < size; row++) {
          for (let column = 0; column < size; column++, index++) {
            if (visible(index, row, column)) painted[index] = colors[Math.round(Math.sqrt(weights[index]) * top)];
          }
        }
      },
      describe: (row, column) => {
        const weight = four(weights[row * size + column]);
        const lines = [
          h("span", { class: "pair" }, h("span", { class: "faint" }, `reader ${row}`), say(names[row])),
          h("span", { class: "pair" }, h("span", { class: "faint" }, `read ${column}`), say(names[column])),
          h("b", {}, weight),
        ];
        readout.replaceChildren(
          h(
            "p",
            {},
            token(units[row].text, "large"),
            h("span", { class: "faint" }, " reads "),
            token(units[column].text, "large"),
          ),
          h("p", {}, h("b", {}, weight)),
        );
        return { lines, text: `${names[row]} reads ${names[column]}: ${weight}` };
      },
    });
    readout.replaceChildren(
      h(
        "p",
        { class: "faint" },
        "Point at a cell, or move with the arrow keys (with Shift, ten at a time), to see its weight.",
      ),
    );
    under.replaceChildren(
      legend("rising", 0, most, "weight", { middle: most / 4 }),
      h("p", { class: "axes" }, `${name}; rows read, columns are read. Colours follow the square root of the weight.`),
    );
  };
  return { root, draw };
}
