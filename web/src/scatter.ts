// Points on a map; the nearest one is named, and all are where there are few.
import { extent } from "d3-array";
import { scaleLinear } from "d3-scale";
import { pointer } from "d3-selection";
import { categoryName } from "./colors";
import { h, say } from "./dom";
import { disclosure, figure, frame } from "./frame";
import { along, drawing, responsive, room, switches, upright, type Box } from "./plot";
import { roving } from "./roving";
import { count, cut, exact, plain, short } from "./text";
import { hideTip, tipAt } from "./tip";
import type { Scatter } from "./types";

const NAMED = 40;
/** Square pixels of another name or point that a name may cover. */
const CLOSE = 40;
/** How far from a point, in pixels, the pointer still means it. */
const NEAR = 24;

interface Rect {
  x: number;
  y: number;
  width: number;
}

export function scatter(panel: Scatter): HTMLElement {
  const { root, body } = frame(panel);
  const place = h("div", { class: "plot" });
  const groups = [...new Set(panel.groups)];
  const shown = new Set(groups.keys());
  const points = panel.points.flatMap(([x, y], at) =>
    x === null || y === null ? [] : [{ x, y, at, group: groups.indexOf(panel.groups[at]) }],
  );
  const kinds = `${count(groups.length, "group")}: ${groups.join(", ")}`;
  const label = `${count(points.length, "point")} by ${panel.x} and ${panel.y}, in ${kinds}`;
  const tip = (at: number): HTMLElement[] => [
    h("b", {}, say(plain(panel.names[at]))),
    h("span", {}, say(plain(panel.groups[at]))),
    h("span", { class: "faint" }, `${exact(panel.points[at][0])}, ${exact(panel.points[at][1])}`),
  ];

  const draw = (width: number): void => {
    const span = (values: number[]): [number, number] => {
      const [low = 0, high = 1] = extent(values) as [number?, number?];
      const more = (high - low || 1) * 0.06;
      return [low - more, high + more];
    };
    const y = scaleLinear().domain(span(points.map((point) => point.y)));
    const height = Math.round(Math.min(460, Math.max(300, width * 0.7)));
    const box: Box = { width, height, left: room(y.ticks(5).map(short)), right: 14, top: 24, bottom: 44 };
    y.range([height - box.bottom, box.top]);
    const x = scaleLinear()
      .domain(span(points.map((point) => point.x)))
      .range([box.left, width - box.right]);
    const svg = drawing(place, width, height, label).attr("role", "group");
    upright(svg, y, box, panel.y);
    along(svg, x, box, panel.x);
    const visible = points.filter((point) => shown.has(point.group));
    const dots = svg
      .append("g")
      .selectAll<SVGCircleElement, unknown>("circle")
      .data(visible)
      .join("circle")
      .attr("class", "point")
      .attr("r", visible.length > 500 ? 3 : 4.5)
      .attr("cx", (point) => x(point.x))
      .attr("cy", (point) => y(point.y))
      .attr("role", "img")
      .attr(
        "aria-label",
        (point) => `${panel.names[point.at]}, ${panel.groups[point.at]}: ${exact(point.x)}, ${exact(point.y)}`,
      )
      .style("fill", (point) => categoryName(point.group));
    const nodes = dots.nodes();
    let current: SVGCircleElement | null = null;
    const mark = (node: SVGCircleElement | null, at = 0): void => {
      current?.classList.remove("current");
      current = node;
      node?.classList.add("current");
      if (node) tipAt(node, tip(at));
      else hideTip();
    };
    dots.on("focus", (event: FocusEvent, point) => mark(event.currentTarget as SVGCircleElement, point.at));
    dots.on("blur", () => mark(null));
    svg.on("pointermove", (event: PointerEvent) => {
      const [left, top] = pointer(event);
      let nearest = -1;
      let best = NEAR ** 2;
      visible.forEach((point, at) => {
        const far = (x(point.x) - left) ** 2 + (y(point.y) - top) ** 2;
        if (far < best) [best, nearest] = [far, at];
      });
      mark(nearest < 0 ? null : nodes[nearest], visible[nearest]?.at);
    });
    svg.on("pointerleave", () => mark(null));
    if (svg.node()) roving(svg.node() as SVGSVGElement, nodes);
    if (points.length > NAMED) return;
    const taken: Rect[] = visible.map((point) => ({ x: x(point.x) - 5, y: y(point.y) - 5, width: 10 }));
    for (const point of visible) {
      const name = cut(plain(panel.names[point.at]), 24);
      const [left, top, wide] = [x(point.x), y(point.y), name.length * 6.2];
      const places = [-5, -16, 6, -27, 17].flatMap((down) => [
        [left + 8, top + down],
        [left - 8 - wide, top + down],
        [left - wide / 2, top + down * 1.6],
      ]);
      const covered = ([a, b]: number[]): number =>
        (a < box.left || a + wide > width ? 1e6 : 0) +
        taken.reduce(
          (sum, each) =>
            sum +
            Math.max(0, Math.min(a + wide, each.x + each.width) - Math.max(a, each.x)) *
              Math.max(0, 12 - Math.abs(each.y - b)),
          0,
        );
      const [a, b] = places.reduce((best, each) => (covered(each) < covered(best) ? each : best));
      if (covered([a, b]) > CLOSE) continue; // the pointer tells its name
      taken.push({ x: a, y: b, width: wide });
      svg
        .append("text")
        .attr("class", "named")
        .attr("x", a)
        .attr("y", b + 9)
        .text(name);
    }
  };

  if (groups.length > 1) body.append(switches(groups, shown, () => draw(place.clientWidth)));
  responsive(place, draw);
  const left = panel.points.length - points.length;
  body.append(figure(label, place));
  if (left)
    body.append(
      h(
        "p",
        { class: "note" },
        `${count(left, "point")} without a finite place ${left === 1 ? "is" : "are"} not drawn.`,
      ),
    );
  body.append(
    disclosure(["name", "group", panel.x, panel.y], () =>
      panel.points.map(([x, y], at) => [panel.names[at], panel.groups[at], x, y]),
    ),
  );
  return root;
}
