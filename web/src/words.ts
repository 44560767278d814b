// A text whose words carry a colour by their number; hover and arrow keys tell the number and the note.
import { max } from "d3-array";
import { ink, legend, shade, type Scale } from "./colors";
import { h, say } from "./dom";
import { figure, frame } from "./frame";
import { roving } from "./roving";
import { exact, plain, token } from "./text";
import { onTheme } from "./theme";
import { hideTip, tipAt } from "./tip";
import type { Words } from "./types";

export function words(panel: Words): HTMLElement {
  const { root, body } = frame(panel);
  const most = max(panel.values, (value) => Math.abs(value ?? 0)) || 1;
  const kinds = Object.entries(panel.key);
  const scale: Scale = panel.diverging ? "both" : "rising";
  // the darkest ends of a scale would hide the words
  const to = panel.diverging ? 0.9 : 0.85;
  const text = h("div", {
    class: "text",
    role: "list",
    dir: "auto",
    "aria-label": `${panel.title}: words and their values`,
  });
  const spans = panel.words.map((word, at) => {
    const [value, note] = [panel.values[at] ?? null, panel.notes[at] ?? ""];
    const amount = kinds.length ? "" : value === null ? "no value" : exact(value);
    const said = `${plain(word)}: ${[amount, note].filter(Boolean).join(", ")}`;
    const span = h("span", { class: "word", role: "listitem", "aria-label": said }, token(word));
    const tip = (): void => {
      const lines = [h("span", { class: "pair" }, say(plain(word)), h("b", {}, kinds.length ? "" : exact(value)))];
      if (note) lines.push(say(plain(note), "faint"));
      tipAt(span, lines);
    };
    span.addEventListener("pointerenter", tip);
    span.addEventListener("focus", tip);
    span.addEventListener("pointerleave", hideTip);
    span.addEventListener("blur", hideTip);
    return span;
  });
  spans.forEach((span) => text.append(span, " "));
  const swatches = kinds.map(([name]) => h("span", { class: "word" }, name));
  const fill = (span: HTMLElement, value: number | null): void => {
    if (value === null) return;
    const back = shade(scale, panel.diverging ? 0.5 + (value / most) * (to - 0.5) : (to * value) / most);
    span.style.backgroundColor = back;
    span.style.color = ink(back);
  };
  const paint = (): void => {
    spans.forEach((span, at) => fill(span, panel.values[at] ?? null));
    swatches.forEach((span, at) => fill(span, kinds[at][1]));
  };
  paint();
  onTheme(paint);
  roving(text, spans);
  const strip = kinds.length ? h("p", { class: "kinds" }, ...swatches) : legend(scale, panel.diverging ? -most : 0, most, panel.title, {
    from: panel.diverging ? 1 - to : 0,
    to,
  });
  body.append(figure(`${panel.title}: each word has a colour by its value`, text), strip);
  return root;
}
