// Tokens and numbers as people read them: what has no shape of its own is spelt out.
import { h } from "./dom";

const PICTURE = /\p{Extended_Pictographic}|\p{Emoji_Modifier}|\uFE0F/u;
const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\u00A0\u034F\u115F\u1160\u3164\uFFA0]/u;

interface Piece {
  text: string;
  code: boolean;
}

/** Splits a text into what is seen and the codes of what is not: control, zero-width and direction characters. */
function pieces(text: string): Piece[] {
  const signs = [...text];
  const found: Piece[] = [];
  signs.forEach((sign, at) => {
    const point = sign.codePointAt(0) ?? 0;
    // what joins or ends an emoji belongs to it
    const joins = point === 0x200d && PICTURE.test(signs[at - 1] ?? "") && PICTURE.test(signs[at + 1] ?? "");
    const flags = point >= 0xe0020 && point <= 0xe007f && text.includes("\u{1F3F4}");
    const code = HIDDEN.test(sign) && !joins && !flags;
    const last = found.at(-1);
    if (code) found.push({ text: `U+${point.toString(16).toUpperCase().padStart(4, "0")}`, code });
    else if (last && !last.code) last.text += sign;
    else found.push({ text: /^\p{M}/u.test(sign) ? `\u25CC${sign}` : sign, code });
  });
  if (!found.length) return [{ text: "empty", code: true }];
  return text.trim()
    ? found
    : found.map((each) => (each.code ? each : { text: "\u2420".repeat(each.text.length), code: true }));
}

/** A token as a plain string, hidden characters as codes between brackets. */
export function plain(text: string): string {
  return pieces(text)
    .map((each) => (each.code ? `\u2039${each.text}\u203A` : each.text))
    .join("");
}

/** A token as an element of its own direction, hidden characters as small codes. */
export function token(text: string, name = ""): HTMLElement {
  const parts = pieces(text).map((each) => (each.code ? h("span", { class: "code" }, each.text) : each.text));
  return h("bdi", { dir: "auto", class: `token ${name}`.trim() }, ...parts);
}

/** A number of the data, as it stands there. */
export function exact(value: number | null | undefined): string {
  return value === null || value === undefined ? "\u2013" : String(value).replace("-", "\u2212");
}

/** A number with four significant digits. */
export function four(value: number): string {
  return exact(Number(value.toPrecision(4)));
}

/** A number short enough for a label. */
export function short(value: number): string {
  return exact(Number(value.toPrecision(3)));
}

/** A count with its noun. */
export function count(number: number, one: string, more = `${one}s`): string {
  return `${number.toLocaleString("en")} ${number === 1 ? one : more}`;
}

export function cut(text: string, most: number): string {
  const signs = [...text];
  return signs.length > most ? `${signs.slice(0, most - 1).join("")}\u2026` : text;
}
