// What is chosen for all views: texts, threshold, words instead of pieces, and a search.
import { choice, h } from "../dom";
import { count, four } from "../text";
import type { Context } from "./panel";
import { SEGMENTS } from "./state";

export function controls({ panel, store, found }: Context): HTMLElement {
  const root = h("div", { class: "controls" });

  // a square scale: most weights are small
  const slider = h("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0 });
  const shown = h("output", {}, "0");
  slider.addEventListener("input", () => {
    const threshold = Number(slider.value) ** 2;
    shown.textContent = four(threshold);
    slider.setAttribute("aria-valuetext", four(threshold));
    store.set({ threshold });
  });
  root.append(
    h("label", { class: "field threshold" }, h("span", {}, "Weights from"), h("span", { class: "row" }, slider, shown)),
  );

  if (panel.sources.includes(0) && panel.sources.includes(1)) {
    root.append(choice("Texts", SEGMENTS, "all", (segment) => store.set({ segment })).root);
  }

  const query = h("input", {
    type: "search",
    placeholder: "part of a token",
    title: "Enter goes to the next, with Shift to the one before",
    spellcheck: "false",
    autocomplete: "off",
    dir: "auto",
  });
  const hits = h("span", { class: "hits", role: "status" });
  const tell = (): void => {
    hits.textContent = store.now.query.trim() ? count(found().size, "match", "matches") : "";
  };
  query.addEventListener("input", () => {
    store.set({ query: query.value, sought: 0 });
    tell();
  });
  query.addEventListener("keydown", (event) => {
    if (event.key === "Enter") store.set({ sought: store.now.sought + (event.shiftKey ? -1 : 1) });
  });
  root.append(h("label", { class: "field search" }, h("span", {}, "Find ", hits), query));

  if (panel.unit === "word") return root;
  const split = panel.words.some((word, at) => word >= 0 && word === panel.words[at - 1]);
  const box = h("input", { type: "checkbox", disabled: !split, role: "switch" });
  box.addEventListener("change", () => {
    store.set({ joined: box.checked });
    tell();
  });
  const why = split ? `${panel.tokens.length} tokens, ${countWords(panel.words)} words` : "no word has several pieces";
  root.append(
    h("label", { class: "field switch" }, box, h("span", {}, "Join word pieces"), h("span", { class: "faint" }, why)),
  );
  return root;
}

function countWords(words: readonly number[]): number {
  return words.filter((word, at) => !at || word < 0 || word !== words[at - 1]).length;
}
