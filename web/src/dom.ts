// Making elements. Text from the data enters the page here and in no other way: as text nodes and attributes.

type Attributes = Record<string, string | number | boolean | null | undefined>;
export type Child = Node | string;

/** An element with attributes (true: present, false or null: absent) and children; strings become text. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children);
  return element;
}

/** A word or sentence of the data: its direction is its own. */
export function say(text: string, name = ""): HTMLElement {
  return h("span", { dir: "auto", class: `said ${name}`.trim() }, text);
}

/** A button with a plain action. */
export function button(label: Child, attributes: Attributes, act: (event: MouseEvent) => void): HTMLButtonElement {
  const made = h("button", { type: "button", ...attributes }, label);
  made.addEventListener("click", act);
  return made;
}

/** A labelled list to choose from. */
export function choice<T extends string | number>(
  label: string,
  options: readonly (readonly [T, string])[],
  chosen: T,
  act: (value: T) => void,
): { root: HTMLLabelElement; show: (value: T) => void } {
  const list = h("select", {}, ...options.map(([, name], at) => h("option", { value: at }, name)));
  const show = (value: T): void => {
    list.selectedIndex = options.findIndex(([each]) => each === value);
  };
  show(chosen);
  list.addEventListener("change", () => act(options[list.selectedIndex][0]));
  return { root: h("label", { class: "field" }, h("span", {}, label), list), show };
}

let numbered = 0;

/** An id that no other element of the page has. */
export function fresh(name: string): string {
  numbered += 1;
  return `${name}-${numbered}`;
}

/** Calls act once per frame at most, however often it is asked for. */
export function perFrame(act: () => void): () => void {
  let asked = 0;
  return () => {
    if (!asked) {
      asked = requestAnimationFrame(() => {
        asked = 0;
        act();
      });
    }
  };
}

/** Does the work piece by piece while the page is idle; the returned function stops it. */
export function whenIdle(pieces: number, work: (piece: number) => void): () => void {
  let stopped = false;
  let at = 0;
  const idle: (act: () => void) => void =
    "requestIdleCallback" in window ? (act) => requestIdleCallback(act, { timeout: 200 }) : (act) => setTimeout(act, 1);
  const step = (): void => {
    const until = performance.now() + 8;
    while (!stopped && at < pieces && performance.now() < until) work(at++);
    if (!stopped && at < pieces) idle(step);
  };
  idle(step);
  return () => {
    stopped = true;
  };
}

/** Sizes a canvas for the screen and gives its context, in CSS pixels, cleared. */
export function prepared(canvas: HTMLCanvasElement, width: number, height: number): CanvasRenderingContext2D {
  const ratio = window.devicePixelRatio || 1;
  const [w, t] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== w || canvas.height !== t) {
    canvas.width = w;
    canvas.height = t;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  if (!context) throw new Error("this browser draws no canvas");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}
