// What every panel has around it: a title, a note, a figure with a label, and its numbers as a table.
import { h, fresh, say, type Child } from "./dom";
import { exact, plain, count } from "./text";
import type { Cell, Panel } from "./types";

/** Rows of a table of numbers that are written out. */
const MOST_ROWS = 2000;

/** A panel's section of the page; `body` is to be filled. */
export function frame(panel: Pick<Panel, "kind" | "title" | "note">): { root: HTMLElement; body: HTMLElement } {
  const id = fresh("panel");
  const body = h("div", { class: "body" });
  const title = h("h2", { id, dir: "auto" }, panel.title);
  const root = h("section", { class: `panel ${panel.kind}`, "aria-labelledby": id }, title);
  if (panel.note) root.append(h("p", { class: "note", dir: "auto" }, panel.note));
  root.append(body);
  return { root, body };
}

/** A chart that a screen reader announces by its label. */
export function figure(label: string, ...children: Child[]): HTMLElement {
  return h("figure", { "aria-label": label }, ...children);
}

/** A plain table; numbers stand to the right, the first column heads its row. */
export function table(columns: readonly string[], rows: readonly Cell[][]): HTMLTableElement {
  const head = h("tr", {}, ...columns.map((name) => h("th", { scope: "col" }, say(plain(name)))));
  const body = h("tbody");
  for (const row of rows) {
    const [first, ...rest] = row.map((cell) => (typeof cell === "string" ? say(plain(cell)) : exact(cell)));
    const line = h("tr", {}, h("th", { scope: "row" }, first));
    rest.forEach((cell, at) => line.append(h("td", typeof row[at + 1] === "string" ? {} : { class: "number" }, cell)));
    body.append(line);
  }
  return h("table", {}, h("thead", {}, head), body);
}

/** "Show as table": the numbers behind a chart, made when they are asked for. */
export function disclosure(columns: readonly string[], rows: () => Cell[][]): HTMLDetailsElement {
  const details = h("details", { class: "numbers" }, h("summary", {}, "Show as table"));
  details.addEventListener(
    "toggle",
    () => {
      const every = rows();
      const place = h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "The numbers as a table" });
      place.append(table(columns, every.slice(0, MOST_ROWS)));
      details.append(place);
      if (every.length > MOST_ROWS) {
        details.append(
          h("p", { class: "note" }, `The first ${count(MOST_ROWS, "row")} of ${every.length.toLocaleString("en")}.`),
        );
      }
    },
    { once: true },
  );
  return details;
}

/** A line for screen readers that says what has just been looked at. */
export function announcer(): HTMLElement {
  return h("p", { class: "unseen", "aria-live": "polite" });
}
