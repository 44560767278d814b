// Colours: categories and the two scales of figures.py (Blues and RdBu), with versions for a dark page.
import { interpolateRgbBasis } from "d3-interpolate";
import { interpolateBlues, interpolateRdBu } from "d3-scale-chromatic";
import { exact, short } from "./text";
import { h, prepared } from "./dom";
import { dark, onTheme } from "./theme";

const LIGHT = [
  "#2a6fb0",
  "#d1712b",
  "#3a8f5d",
  "#8a5bb5",
  "#b4435a",
  "#6b6b6b",
  "#a88d1c",
  "#2f9ea0",
  "#1f3f77",
  "#8c4a16",
  "#c07fc4",
  "#5d7a1f",
];
const DARK = [
  "#64a8e8",
  "#f0995a",
  "#63bd88",
  "#b892e0",
  "#e67a90",
  "#a9adb3",
  "#d9bf52",
  "#5fc9cb",
  "#8fa8f0",
  "#d0905f",
  "#e0a8e4",
  "#a3c45f",
];

const RISING_DARK = interpolateRgbBasis(["#1a222c", "#1f4569", "#2c76b4", "#72b2e6", "#e2f1fd"]);
const BOTH_DARK = interpolateRgbBasis(["#b8dcf8", "#4b97d2", "#24527c", "#20262e", "#84402f", "#d97757", "#ffd3bf"]);

export type Scale = "rising" | "both";

/** The colour of the series, group or head of this number. */
export function category(at: number): string {
  return (dark() ? DARK : LIGHT)[at % LIGHT.length];
}

/** The colour at a share in [0, 1]; on the scale with two ends, 0.5 is nothing. */
export function shade(scale: Scale, share: number): string {
  const at = Math.min(1, Math.max(0, share));
  if (scale === "rising") return dark() ? RISING_DARK(at) : interpolateBlues(at);
  return dark() ? BOTH_DARK(at) : interpolateRdBu(1 - at);
}

function channels(color: string): [number, number, number] {
  const [red, green, blue] = (color.match(/\d+/g) ?? ["0", "0", "0"]).map(Number);
  return [red, green, blue];
}

/** Black or white, whichever is read better on this colour (relative luminance of WCAG 2). */
export function ink(color: string): string {
  const [red, green, blue] = channels(color).map((each) => {
    const share = each / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000000" : "#ffffff";
}

/** The scale in 256 steps, as the pixels of an ImageData are. */
export function pixels(scale: Scale): Uint32Array {
  return Uint32Array.from({ length: 256 }, (_, at) => {
    const [red, green, blue] = channels(shade(scale, at / 255));
    return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  });
}

export interface LegendOptions {
  /** What stands in the middle, where it is not half way. */
  middle?: number;
  /** The part of the scale that is used. */
  from?: number;
  to?: number;
}

/** What the colours stand for: a strip between two numbers. */
export function legend(
  scale: Scale,
  low: number,
  high: number,
  label: string,
  options: LegendOptions = {},
): HTMLElement {
  const { from = 0, to = 1 } = options;
  const strip = h("canvas", { "aria-hidden": "true" });
  const draw = (): void => {
    const context = prepared(strip, 120, 10);
    for (let at = 0; at < 120; at++) {
      context.fillStyle = shade(scale, from + ((to - from) * at) / 119);
      context.fillRect(at, 0, 1, 10);
    }
  };
  draw();
  onTheme(draw);
  const center = options.middle ?? (scale === "both" ? (low + high) / 2 : undefined);
  const ends = h("span", { class: "ends" }, h("span", {}, short(low)));
  if (center !== undefined) ends.append(h("span", {}, short(center)));
  ends.append(h("span", {}, short(high)));
  const said = `${label ? `${label}: ` : ""}colours from ${exact(low)} to ${exact(high)}`;
  return h("div", { class: "legend", role: "img", "aria-label": said }, strip, ends);
}

/** Puts the categories into the style sheet as --c0, --c1, ... */
export function startColors(): void {
  const apply = (): void => {
    LIGHT.forEach((_, at) => document.documentElement.style.setProperty(`--c${at}`, category(at)));
  };
  onTheme(apply);
  apply();
}

export const categoryName = (at: number): string => `var(--c${at % LIGHT.length})`;
