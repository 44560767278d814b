// The heads whose lines are drawn, each with its colour: click one on or off, with Shift it alone.
import { button, h } from "../dom";
import { categoryName } from "../colors";
import type { Store } from "./state";

export function chips(store: Store, numbers: readonly number[]): { root: HTMLElement; show: () => void } {
  const list = numbers.map((number, head) => {
    const key = h("span", { class: "key", "aria-hidden": "true" });
    key.style.background = categoryName(head);
    const label = h("span", {}, key, String(number));
    return button(
      label,
      { class: "chip", "aria-label": `head ${number}`, title: "with Shift: this head alone" },
      (event) => {
        const heads = new Set(event.shiftKey ? [head] : store.now.heads);
        if (!event.shiftKey && !heads.delete(head)) heads.add(head);
        store.set({ heads });
      },
    );
  });
  const all = button("all", { class: "quiet" }, () => store.set({ heads: new Set(numbers.keys()) }));
  const none = button("none", { class: "quiet" }, () => store.set({ heads: new Set() }));
  const group = h(
    "div",
    { class: "switches", role: "group", "aria-label": "Heads whose lines are drawn" },
    ...list,
    all,
    none,
  );
  const root = h("div", { class: "field" }, h("span", { "aria-hidden": "true" }, "Heads"), group);
  const show = (): void =>
    list.forEach((each, head) => each.setAttribute("aria-pressed", String(store.now.heads.has(head))));
  return { root, show };
}
