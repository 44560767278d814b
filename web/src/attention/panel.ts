// One attention panel: what is chosen for all views at the top, then heads, matrix and overview as tabs.
import { h, fresh, perFrame } from "../dom";
import { frame } from "../frame";
import { count } from "../text";
import type { Attention } from "../types";
import { controls } from "./controls";
import { decode, type Weights } from "./codes";
import { byToken, byWord, type Grid } from "./grid";
import { headsView } from "./heads";
import { matrixView } from "./matrix";
import { overviewView } from "./overview";
import { Store, type State } from "./state";

/** Up to this many tokens all heads are drawn at first; above, one. */
const FEW = 40;

/** A view of the weights: its element, and how it draws what is chosen now. */
export interface Tab {
  root: HTMLElement;
  draw: (changed: ReadonlySet<keyof State>) => void;
}

export interface Context {
  panel: Attention;
  store: Store;
  /** The numbers that people know the heads by. */
  headNumbers: readonly number[];
  /** Between tokens or words, as is chosen. */
  grid: () => Grid;
  /** Units whose text has the query in it. */
  found: () => ReadonlySet<number>;
  /** Opens one head in the matrix. */
  open: (layer: number, head: number) => void;
}

type Name = "heads" | "matrix" | "overview";

export function attention(panel: Attention): HTMLElement {
  const { root, body } = frame(panel);
  const waiting = h("p", { class: "note", role: "status" }, "Reading the weights\u2026");
  body.append(waiting);
  const near = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      near.disconnect();
      decode(panel).then(
        (weights) => {
          waiting.remove();
          fill(panel, weights, body);
          root.dataset["ready"] = "true";
        },
        (error: unknown) => {
          waiting.textContent = `The weights cannot be read: ${error instanceof Error ? error.message : String(error)}`;
        },
      );
    },
    { rootMargin: "600px" },
  );
  near.observe(root);
  return root;
}

function fill(panel: Attention, weights: Weights, body: HTMLElement): void {
  const few = panel.tokens.length <= FEW;
  const heads = new Set(Array.from({ length: few ? panel.heads.length : 1 }, (_, at) => at));
  const store = new Store({
    layer: 0,
    head: 0,
    heads,
    threshold: 0,
    segment: "all",
    joined: false,
    query: "",
    sought: 0,
  });
  link(store, panel);
  const tokens = byToken(panel, weights);
  let words: Grid | null = null;
  const grid = (): Grid => (store.now.joined ? (words ??= byWord(panel, weights)) : tokens);
  const found = (): ReadonlySet<number> => {
    const query = store.now.query.trim().toLocaleLowerCase();
    const units = grid().units;
    return new Set(query ? [...units.keys()].filter((at) => units[at].text.toLocaleLowerCase().includes(query)) : []);
  };
  const open = (layer: number, head: number): void => {
    store.set({ layer, head });
    choose("matrix", true);
  };
  const context: Context = { panel, store, headNumbers: panel.heads, grid, found, open };
  const makers: [Name, string, (context: Context) => Tab][] = [
    ["heads", "Heads", headsView],
    ["matrix", "Matrix", matrixView],
    ["overview", "Overview", overviewView],
  ];

  const made = new Map<Name, Tab>();
  const stale = new Map<Name, Set<keyof State>>();
  let shown: Name = "heads";
  const list = h("div", { class: "tabs", role: "tablist", "aria-label": "Views of the attention" });
  const tabs = makers.map(([name, label]) => {
    const [tabId, placeId] = [fresh("tab"), fresh("view")];
    const tab = h(
      "button",
      { type: "button", role: "tab", id: tabId, "aria-controls": placeId, "data-view": name },
      label,
    );
    const place = h("div", { role: "tabpanel", id: placeId, "aria-labelledby": tabId, class: `view ${name}` });
    tab.addEventListener("click", () => choose(name, false));
    list.append(tab);
    return { name, tab, place };
  });
  const redraw = perFrame(() => {
    const tab = made.get(shown);
    const changed = stale.get(shown) ?? new Set<keyof State>();
    stale.set(shown, new Set());
    tab?.draw(changed);
  });
  const choose = (name: Name, focus: boolean): void => {
    shown = name;
    for (const each of tabs) {
      const chosen = each.name === name;
      each.tab.setAttribute("aria-selected", String(chosen));
      each.tab.tabIndex = chosen ? 0 : -1;
      each.place.hidden = !chosen;
      if (chosen && focus) each.tab.focus();
      if (chosen && !made.has(name)) {
        const maker = makers.find(([maker]) => maker === name);
        if (!maker) continue;
        const tab = maker[2](context);
        made.set(name, tab);
        each.place.append(tab.root);
        stale.set(name, new Set(Object.keys(store.now) as (keyof State)[]));
      }
    }
    redraw();
  };
  list.addEventListener("keydown", (event) => {
    const at = tabs.findIndex((each) => each.name === shown);
    const next = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    choose(tabs[(next + tabs.length) % tabs.length].name, true);
  });
  store.on((changed) => {
    for (const set of stale.values()) changed.forEach((name) => set.add(name));
    redraw();
  });

  const size = [
    count(panel.tokens.length, panel.unit),
    count(panel.layers.length, "layer"),
    count(panel.heads.length, "head"),
  ];
  const facts = h("p", { class: "facts" }, [...size, precision(panel)].join(" \u00B7 "));
  body.append(facts, controls(context), list, ...tabs.map((each) => each.place));
  choose("heads", false);
}

/** Stores of the panels of one model on this page: texts side by side show the same layer and heads. */
const linked: { store: Store; layers: string }[] = [];

function link(store: Store, panel: Attention): void {
  const layers = [...panel.layers, "", ...panel.heads].join(" ");
  const first = linked.find((other) => other.layers === layers);
  if (first) {
    const { layer, head, heads } = first.store.now; // a panel that is read later begins where the others are
    store.set({ layer, head, heads });
  }
  linked.push({ store, layers });
  store.on((changed) => {
    const { layer, head, heads } = store.now;
    if (!(["layer", "head", "heads"] as const).some((name) => changed.has(name))) return;
    for (const other of linked) {
      if (other.store !== store && other.layers === layers) other.store.set({ layer, head, heads });
    }
  });
}

/** How far the weights that are shown may be from the model's. */
function precision(panel: Attention): string {
  const from = panel.bits === 8 ? ` from ${upTo(panel.cutoff)} on` : "";
  const own = `weights${from} are within ${upTo(100 * panel.share)} % of themselves`;
  if (!from) return own;
  const small = "smaller ones stand as the mean of those in their row";
  return `${own}, ${small}; none is more than ${upTo(panel.error)} off, and rows sum to 1`;
}

/** A bound in two digits, rounded up. */
function upTo(value: number): string {
  const unit = 10 ** (Math.floor(Math.log10(value || 1)) - 1);
  return String(Number((Math.ceil(value / unit - 1e-9) * unit).toPrecision(2)));
}
