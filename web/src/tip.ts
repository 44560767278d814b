// The small note beside the pointer, one for the page.
import { h, type Child } from "./dom";

const box = h("div", { class: "tip", "aria-hidden": "true", hidden: true });

export type TipLine = Child | readonly Child[];

/** Shows lines near a place of the window. */
export function showTip(x: number, y: number, lines: readonly TipLine[]): void {
  if (!box.isConnected) document.body.append(box);
  box.replaceChildren(
    ...lines.map((line) => h("div", {}, ...(Array.isArray(line) ? (line as Child[]) : [line as Child]))),
  );
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  const left = x + 14 + width > window.innerWidth - 8 ? x - width - 14 : x + 14;
  const top = y + 18 + height > window.innerHeight - 8 ? y - height - 10 : y + 18;
  box.style.transform = `translate(${Math.round(Math.max(8, left))}px, ${Math.round(Math.max(8, top))}px)`;
}

/** Shows lines under an element, for those who came there by keyboard. */
export function tipAt(element: Element, lines: readonly TipLine[]): void {
  const place = element.getBoundingClientRect();
  showTip(place.left + place.width / 2 - 10, place.bottom - 10, lines);
}

export function hideTip(): void {
  box.hidden = true;
}

/** Goes away with Escape and when the page moves under it. */
export function startTip(): void {
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hideTip();
  });
  window.addEventListener("scroll", hideTip, { passive: true });
}
