// Beside the lines, in numbers: what the shown token reads most, and who reads it most.
import { sum } from "d3-array";
import { categoryName } from "../colors";
import { button, h } from "../dom";
import { four, token } from "../text";
import type { Grid } from "./grid";
import { allowed, type State } from "./state";

const TOP = 10;

/**
 * The mean weight over the chosen heads between one unit and each other; -1 where the choice of texts leaves it out, or where
 * no head has as much as the threshold.
 */
export function means(grid: Grid, state: State, unit: number, reads: boolean): Float64Array {
  const { units } = grid;
  const found = new Float64Array(units.length);
  const heads = [...state.heads];
  units.forEach((_, other) => {
    const [row, column] = reads ? [unit, other] : [other, unit];
    if (!heads.length || !allowed(state.segment, units[row].source, units[column].source)) {
      found[other] = -1;
      return;
    }
    const each = heads.map((head) => grid.at(state.layer, head, row, column));
    found[other] = Math.max(...each) < state.threshold ? -1 : sum(each) / heads.length;
  });
  return found;
}

/** Places of the largest values, the largest first; what is left out has none. */
export function largest(values: Float64Array, count: number): number[] {
  return [...values.keys()]
    .filter((at) => values[at] >= 0)
    .sort((one, two) => values[two] - values[one])
    .slice(0, count);
}

/** Two lists of tokens with bars; a click goes to the token. */
export function ranking(
  grid: Grid,
  state: State,
  unit: number,
  numbers: readonly number[],
  go: (unit: number) => void,
): HTMLElement {
  const single = state.heads.size === 1;
  const list = (title: string, reads: boolean): HTMLElement => {
    const values = means(grid, state, unit, reads);
    const rows = largest(values, TOP);
    const most = values[rows[0]] || 1;
    const items = rows.map((other) => {
      const bar = h("span", { class: "bar" });
      bar.style.width = `${(100 * values[other]) / most}%`;
      const [row, column] = reads ? [unit, other] : [other, unit];
      const best = [...state.heads].reduce((top, head) =>
        grid.at(state.layer, head, row, column) > grid.at(state.layer, top, row, column) ? head : top,
      );
      const entry = button(token(grid.units[other].text), {}, () => go(other));
      entry.append(h("span", { class: "faint index" }, String(other)));
      const key = h("span", { class: "key" });
      key.style.background = categoryName(best);
      const where = single
        ? ""
        : h("span", { class: "faint best" }, key, `${numbers[best]}: ${four(grid.at(state.layer, best, row, column))}`);
      return h(
        "li",
        {},
        entry,
        h("span", { class: "number" }, four(values[other])),
        where,
        h("span", { class: "track" }, bar),
      );
    });
    return h(
      "div",
      {},
      h("h3", {}, title),
      items.length ? h("ol", {}, ...items) : h("p", { class: "faint" }, "nothing in this choice"),
    );
  };
  const chosen = [...state.heads];
  const which = single
    ? `head ${numbers[chosen[0]]}`
    : `mean of ${chosen.length} heads; beside it the head with the most`;
  const head = h(
    "p",
    { class: "shown" },
    token(grid.units[unit].text, "large"),
    h("span", { class: "faint" }, ` ${unit} \u00B7 ${which}`),
  );
  return h("div", { class: "ranking" }, head, list("reads", true), list("is read by", false));
}
