// Numbers as colours, in rows and columns.
import { max } from "d3-array";
import { legend, pixels, type Scale } from "./colors";
import { Cells } from "./cells";
import { h, say } from "./dom";
import { disclosure, figure, frame } from "./frame";
import { called } from "./plot";
import { exact, plain } from "./text";
import type { Heatmap } from "./types";

/** Cells of a map that is also offered as a table. */
const TABLED = 4000;

export function heatmap(panel: Heatmap): HTMLElement {
  const { root, body } = frame(panel);
  const scale: Scale = panel.diverging ? "both" : "rising";
  const width = max(panel.values, (row) => row.length) ?? 0;
  const rows = (panel.rows ?? panel.values.map((_, at) => String(at))).map(plain);
  const columns = (panel.columns ?? Array.from({ length: width }, (_, at) => String(at))).map(plain);
  const [x, y] = [called(panel.x), called(panel.y)];
  const cells = new Cells(`${panel.title}: ${y} by ${x}`, panel.x === panel.y && rows.length === columns.length);
  const counted = (names: readonly string[]): boolean => names.every((name) => /^\d+$/.test(name));
  const span = panel.high - panel.low || 1;
  cells.show({
    rows,
    columns,
    numbered: { rows: counted(rows), columns: counted(columns) },
    paint: (painted) => {
      const colors = pixels(scale);
      panel.values.forEach((row, at) =>
        row.forEach((value, column) => {
          const share = value === null ? -1 : Math.min(1, Math.max(0, (value - panel.low) / span));
          if (share >= 0) painted[at * columns.length + column] = colors[Math.round(share * 255)];
        }),
      );
    },
    describe: (row, column) => {
      const value = exact(panel.values[row][column]);
      const lines = [
        h("span", { class: "pair" }, h("span", { class: "faint" }, y), say(rows[row])),
        h("span", { class: "pair" }, h("span", { class: "faint" }, x), say(columns[column])),
        h("b", {}, value),
      ];
      return { lines, text: `${rows[row]}, ${columns[column]}: ${value}` };
    },
  });
  const sides = [y && `rows: ${y}`, x && `columns: ${x}`].filter(Boolean).join(" \u00B7 ");
  const axes = h("p", { class: "axes" }, say(sides));
  body.append(
    figure(x && y ? `${panel.title}: ${y} by ${x}` : panel.title, cells.root),
    h("div", { class: "under" }, legend(scale, panel.low, panel.high, panel.title), axes),
  );
  if (rows.length * columns.length <= TABLED) {
    body.append(disclosure([y, ...columns], () => panel.values.map((row, at) => [rows[at], ...row])));
  }
  return root;
}
