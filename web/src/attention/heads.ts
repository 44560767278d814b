// Tokens in two columns and lines between them: the left one reads, the right one is read.
import { choice, h, perFrame } from "../dom";
import { announcer, figure } from "../frame";
import { roving } from "../roving";
import { count, four, plain, token } from "../text";
import { onTheme } from "../theme";
import { chips } from "./chips";
import type { Context, Tab } from "./panel";
import { largest, means, ranking } from "./ranking";
import { ofOne, strongest, type Wires } from "./strongest";
import { drawWires } from "./wires";

/** Lines drawn at once, of all tokens and of one; numbers written beside the tokens. */
const LINES = 1000;
const LINES_OF_ONE = 400;
const NUMBERS = 60;
const ROW = 24;

interface Shown {
  unit: number;
  reads: boolean;
}

interface Label {
  row: HTMLElement;
  number: HTMLElement;
}

export function headsView({ panel, store, headNumbers, grid, found }: Context): Tab {
  const layer = choice(
    "Layer",
    panel.layers.map((number, at) => [at, String(number)] as const),
    store.now.layer,
    (value) => store.set({ layer: value }),
  );
  const heads = chips(store, headNumbers);
  const canvas = h("canvas", { "aria-hidden": "true" });
  const [left, right] = [
    h("div", { class: "column reader", role: "listbox" }),
    h("div", { class: "column read", role: "listbox" }),
  ];
  left.setAttribute("aria-label", "Tokens that read");
  right.setAttribute("aria-label", "Tokens that are read");
  const inside = h("div", { class: "inside" }, left, h("div", { class: "gap" }, canvas), right);
  const view = h("div", { class: "flow" }, inside);
  const titles = h(
    "div",
    { class: "titles", "aria-hidden": "true" },
    h("span", {}, "reads"),
    h("span", {}),
    h("span", {}, "is read"),
  );
  const side = h("aside", { class: "side", "aria-label": "The shown token in numbers" });
  const status = h("p", { class: "axes" });
  const live = announcer();
  const place = figure("Lines from each token to the tokens it reads", titles, view, live);
  const root = h(
    "div",
    {},
    h("div", { class: "choices" }, layer.root, heads.root),
    h("div", { class: "split" }, h("div", {}, place, status), side),
  );

  let labels: [Label[], Label[]] = [[], []];
  let all: Wires | null = null;
  let wires: Wires | null = null;
  let pinned: Shown | null = null;
  let looked: Shown | null = null;
  let drawn = "";
  let marked: Label[] = [];

  const drawLines = (): void => {
    if (!wires || !view.clientHeight) return;
    const width = canvas.parentElement?.clientWidth ?? 0;
    drawWires(canvas, wires, panel.heads.length, { width, height: view.clientHeight, row: ROW, scrolled: view.scrollTop });
  };
  const lines = perFrame(drawLines);

  /** Redraws for the token that is pinned or looked at, or for all. */
  const show = (): void => {
    const shown = pinned ?? looked;
    const key = shown ? `${shown.unit} ${shown.reads}` : "";
    if (key === drawn) return;
    drawn = key;
    for (const label of marked) {
      label.row.classList.remove("shown", "pinned", "linked");
      label.row.removeAttribute("aria-selected");
      label.number.textContent = "";
    }
    marked = [];
    if (!shown) {
      wires = all;
      side.replaceChildren(
        h(
          "p",
          { class: "faint" },
          "Point at a token, or go to it with the arrow keys, to see its lines alone and its weights as numbers; " +
            "click or press Enter to keep it.",
        ),
      );
      tell();
      lines();
      return;
    }
    const [mine, other] = shown.reads ? labels : [labels[1], labels[0]];
    const state = store.now;
    mine[shown.unit].row.classList.add("shown");
    if (pinned) {
      mine[shown.unit].row.classList.add("pinned");
      mine[shown.unit].row.setAttribute("aria-selected", "true");
    }
    marked.push(mine[shown.unit]);
    const values = means(grid(), state, shown.unit, shown.reads);
    const best = largest(values, NUMBERS);
    for (const at of best) {
      other[at].number.textContent = four(values[at]);
      other[at].row.classList.add("linked");
      other[at].row.style.setProperty("--share", String(values[at] / (values[best[0]] || 1)));
      marked.push(other[at]);
    }
    wires = ofOne(grid(), state, shown.unit, shown.reads, LINES_OF_ONE);
    const goes = (unit: number): void => go(unit, shown.reads);
    side.replaceChildren(
      state.heads.size
        ? ranking(grid(), state, shown.unit, headNumbers, goes)
        : h("p", { class: "faint" }, "No head is chosen."),
    );
    tell();
    lines();
    const said = best.slice(0, 5).map((at) => `${plain(grid().units[at].text)} ${four(values[at])}`);
    live.textContent = `${plain(grid().units[shown.unit].text)} ${shown.reads ? "reads" : "is read by"} ${said.join(", ")}`;
  };

  const tell = (): void => {
    if (!wires) return;
    const many = wires.count < wires.total;
    status.textContent = many
      ? `The strongest ${wires.count.toLocaleString("en")} of ${count(wires.total, "line")} are drawn.`
      : `${count(wires.count, "line")}${store.now.threshold ? ` from ${four(store.now.threshold)}` : ""}.`;
    if (wires.count) status.textContent += ` The strongest is ${four(wires.most)}; others are fainter in proportion.`;
  };

  const reach = (unit: number): void => {
    view.scrollTop = (unit + 0.5) * ROW - view.clientHeight / 2;
  };
  const go = (unit: number, reads: boolean): void => {
    pinned = { unit, reads };
    reach(unit);
    show();
  };

  const unitOf = (event: Event): Shown | null => {
    const row = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-unit]") : null;
    return row ? { unit: Number(row.dataset["unit"]), reads: row.parentElement === left } : null;
  };
  const look = (shown: Shown | null): void => {
    looked = shown;
    show();
  };
  const pin = (shown: Shown | null): void => {
    const same = shown && pinned && shown.unit === pinned.unit && shown.reads === pinned.reads;
    pinned = same ? null : shown;
    drawn = "again";
    show();
  };
  view.addEventListener("pointerover", (event) => event.pointerType === "mouse" && look(unitOf(event)));
  view.addEventListener("pointerleave", () => look(null));
  view.addEventListener("focusin", (event) => look(unitOf(event)));
  view.addEventListener("focusout", () => look(null));
  view.addEventListener("click", (event) => pin(unitOf(event)));
  view.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") pin(unitOf(event));
    else if (event.key === "Escape") pin(null);
    else return;
    event.preventDefault();
  });
  view.addEventListener("scroll", lines, { passive: true });
  new ResizeObserver(lines).observe(view);
  onTheme(drawLines);

  /** Makes the two columns anew, for tokens or for words. */
  const build = (): void => {
    const units = grid().units;
    const make = (column: HTMLElement): Label[] => {
      const made = units.map((unit, at) => {
        const number = h("span", { class: "weight" });
        const row = h(
          "div",
          { class: "unit", role: "option", "data-unit": at, "data-source": unit.source },
          token(unit.text),
          number,
        );
        row.title = plain(unit.text);
        return { row, number };
      });
      column.replaceChildren(...made.map(({ row }) => row));
      return made;
    };
    labels = [make(left), make(right)];
    inside.style.setProperty("--row", `${ROW}px`);
    [pinned, looked, marked] = [null, null, []];
    const rows = labels.map((column) => column.map(({ row }) => row));
    roving(left, rows[0]);
    roving(right, rows[1]);
  };

  const find = (scroll: boolean): void => {
    const hits = found();
    for (const column of labels) column.forEach(({ row }, at) => row.classList.toggle("found", hits.has(at)));
    if (!scroll || !hits.size) return;
    const [every, sought] = [[...hits], store.now.sought];
    reach(every[((sought % every.length) + every.length) % every.length]);
  };

  const draw: Tab["draw"] = (changed) => {
    layer.show(store.now.layer);
    heads.show();
    if (changed.has("joined")) build();
    const asked = changed.has("query") || changed.has("sought");
    if (asked || changed.has("joined")) find(asked);
    if ((["layer", "heads", "threshold", "segment", "joined"] as const).some((name) => changed.has(name))) {
      all = strongest(grid(), store.now, LINES);
      drawn = "again";
      show();
    }
  };
  return { root, draw };
}
