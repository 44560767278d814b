// What the charts in SVG share: a drawing as wide as its place, two axes, and a legend that switches series.
import { axisBottom, axisLeft, type AxisScale } from "d3-axis";
import { select, type Selection } from "d3-selection";
import { categoryName } from "./colors";
import { button, h, perFrame, say } from "./dom";
import { cut, plain, short } from "./text";

export type Svg = Selection<SVGSVGElement, unknown, null, undefined>;
export type Group = Selection<SVGGElement, unknown, null, undefined>;

export interface Box {
  width: number;
  height: number;
  left: number;
  right: number;
  top: number;
  bottom: number;
}

/** Calls draw with the width of the place, first and whenever it changes. */
export function responsive(place: HTMLElement, draw: (width: number) => void): void {
  let last = 0;
  const again = perFrame(() => {
    const width = Math.floor(place.clientWidth);
    if (width && width !== last) {
      last = width;
      draw(width);
    }
  });
  new ResizeObserver(again).observe(place);
}

/** An axis by its name; one without a name is not called anything. */
export function called(name: string): string {
  return name && plain(name);
}

/** An empty drawing in the place, instead of the one before. */
export function drawing(place: HTMLElement, width: number, height: number, label: string): Svg {
  place.replaceChildren();
  const root = select(place).append("svg");
  root.attr("width", width).attr("height", height).attr("viewBox", `0 0 ${width} ${height}`);
  return root.attr("role", "img").attr("aria-label", label);
}

/** The upright axis with faint lines across, and its name above. */
export function upright(root: Svg, scale: AxisScale<number>, box: Box, name: string): void {
  const axis = axisLeft<number>(scale).ticks(Math.max(3, Math.round(box.height / 56)));
  const group = root.append("g").attr("class", "axis upright").attr("transform", `translate(${box.left},0)`);
  group.call(
    axis
      .tickFormat((value) => short(Number(value)))
      .tickSize(0)
      .tickPadding(8),
  );
  group
    .selectAll(".tick")
    .append("line")
    .attr("class", "across")
    .attr("x2", box.width - box.left - box.right);
  group
    .append("text")
    .attr("class", "name")
    .attr("x", 4 - box.left)
    .attr("y", 12)
    .text(called(name));
}

/** The axis along the bottom, for numbers. */
export function along(root: Svg, scale: AxisScale<number>, box: Box, name: string): void {
  const inside = box.width - box.left - box.right;
  const axis = axisBottom<number>(scale).ticks(Math.max(2, Math.round(inside / 80)));
  const group = root
    .append("g")
    .attr("class", "axis")
    .attr("transform", `translate(0,${box.height - box.bottom})`);
  group.call(
    axis
      .tickFormat((value) => short(Number(value)))
      .tickSize(4)
      .tickPadding(6),
  );
  group
    .append("text")
    .attr("class", "name")
    .attr("x", box.left + inside)
    .attr("y", box.bottom - 6)
    .attr("text-anchor", "end")
    .text(called(name));
}

/** Room at the left for the longest of some labels. */
export function room(labels: readonly string[]): number {
  return 18 + 7 * Math.max(2, ...labels.map((label) => label.length));
}

/** Names with the colours that stand for them; pressed ones are shown. */
export function switches(names: readonly string[], shown: Set<number>, changed: () => void): HTMLElement {
  const list = h("div", { class: "switches", role: "group", "aria-label": "Shown series" });
  names.forEach((name, at) => {
    const key = h("span", { class: "key", "aria-hidden": "true" });
    key.style.background = categoryName(at);
    const label = h("span", {}, key, say(cut(plain(name), 60)));
    const each = button(label, { class: "chip", "aria-pressed": "true" }, () => {
      if (!shown.delete(at)) shown.add(at);
      each.setAttribute("aria-pressed", String(shown.has(at)));
      changed();
    });
    list.append(each);
  });
  return list;
}
