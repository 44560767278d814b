// Rows of text and numbers, sorted by any column.
import { h, button, say } from "./dom";
import { frame } from "./frame";
import { exact, plain } from "./text";
import type { Cell, Table } from "./types";

const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

/** Numbers before texts, both rising; nothing comes last either way. */
function compare(one: Cell, two: Cell, sign: number): number {
  if (one === null || two === null) return Number(one === null) - Number(two === null);
  if (typeof one === "number" && typeof two === "number") return sign * (one - two);
  if (typeof one !== typeof two) return sign * (typeof one === "number" ? -1 : 1);
  return sign * order.compare(String(one), String(two));
}

export function table(panel: Table): HTMLElement {
  const { root, body } = frame(panel);
  const numeric = panel.columns.map((_, at) => panel.rows.some((row) => typeof row[at] === "number"));
  const lines = panel.rows.map((row) => {
    const cells = row.map((cell, at) =>
      h("td", { class: numeric[at] ? "number" : null }, typeof cell === "string" ? say(plain(cell)) : exact(cell)),
    );
    return { row, element: h("tr", {}, ...cells) };
  });
  const rows = h("tbody", {}, ...lines.map((line) => line.element));
  let [by, sign] = [-1, 1];
  const heads = panel.columns.map((name, at) => {
    const head = h("th", { scope: "col", class: numeric[at] ? "number" : null });
    head.append(
      button(h("span", {}, say(plain(name)), h("span", { class: "arrow", "aria-hidden": "true" })), {}, () => sort(at)),
    );
    return head;
  });
  // numbers are first sorted from the largest, texts from A; the third click restores the order of the data
  const sort = (column: number): void => {
    const first = numeric[column] ? -1 : 1;
    if (by !== column) [by, sign] = [column, first];
    else if (sign === first) sign = -first;
    else by = -1;
    const sorted = by < 0 ? lines : [...lines].sort((one, two) => compare(one.row[by], two.row[by], sign));
    rows.append(...sorted.map((line) => line.element));
    heads.forEach((head, at) => {
      if (at === by) head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  };
  const made = h("table", { "aria-label": panel.title }, h("thead", {}, h("tr", {}, ...heads)), rows);
  body.append(h("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": `${panel.title}, a table` }, made));
  return root;
}
