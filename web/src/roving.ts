// One stop for the Tab key in a group of many; arrow keys go on from there.

const leaving = new WeakMap<Element, AbortController>();

/** Arrow keys move the focus through the items, which may be given anew; columns: how many stand in a row. */
export function roving(root: Element, items: readonly (HTMLElement | SVGElement)[], columns = 1): void {
  leaving.get(root)?.abort();
  const leave = new AbortController();
  leaving.set(root, leave);
  if (!items.length) return;
  const places = new Map<Element, number>(items.map((item, at) => [item, at]));
  let current = 0;
  items.forEach((item, at) => item.setAttribute("tabindex", at === 0 ? "0" : "-1"));
  const choose = (at: number): void => {
    items[current].setAttribute("tabindex", "-1");
    current = at;
    items[current].setAttribute("tabindex", "0");
  };
  root.addEventListener(
    "focusin",
    (event) => {
      const at = places.get(event.target as Element);
      if (at !== undefined) choose(at);
    },
    { signal: leave.signal },
  );
  root.addEventListener(
    "keydown",
    (event) => {
      const key = (event as KeyboardEvent).key;
      if (!places.has(event.target as Element)) return;
      const steps: Record<string, number> = {
        ArrowLeft: -1,
        ArrowRight: 1,
        ArrowUp: -columns,
        ArrowDown: columns,
        Home: -current,
        End: items.length - 1 - current,
      };
      if (!(key in steps)) return;
      event.preventDefault();
      const next = current + steps[key];
      if (next < 0 || next >= items.length) return;
      choose(next);
      items[next].focus();
    },
    { signal: leave.signal },
  );
}
