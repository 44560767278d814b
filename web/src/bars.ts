// Bars side by side for each name, with error bars; hover, focus and arrow keys read them.
import { axisBottom } from "d3-axis";
import { scaleBand, scaleLinear } from "d3-scale";
import { categoryName } from "./colors";
import { h, say } from "./dom";
import { disclosure, figure, frame } from "./frame";
import { drawing, responsive, room, switches, upright, type Box } from "./plot";
import { roving } from "./roving";
import { cut, exact, plain, short } from "./text";
import { hideTip, showTip, tipAt } from "./tip";
import type { Bars, Cell } from "./types";

export function bars(panel: Bars): HTMLElement {
  const { root, body } = frame(panel);
  const place = h("div", { class: "plot" });
  const shown = new Set(panel.groups.keys());
  const groups = panel.groups.length > 1 ? ` by ${panel.groups.join(", ")}` : "";
  const label = `${panel.y} for ${panel.names.join(", ")}${groups}`;
  const ends = (name: number, group: number): [number, number] | null => {
    const [low, high] = panel.ranges?.[name][group] ?? [null, null];
    return low === null || high === null ? null : [low, high];
  };
  const value = (name: number, group: number): string => {
    const range = ends(name, group);
    return exact(panel.values[name][group]) + (range ? ` [${range.map(exact).join(", ")}]` : "");
  };
  const tip = (name: number, group: number): HTMLElement[] => [
    h("span", {}, say(plain(panel.names[name]))),
    h("span", { class: "pair" }, say(plain(panel.groups[group] ?? "")), h("b", {}, value(name, group))),
  ];

  const draw = (given: number): void => {
    const groups = [...shown].sort((one, two) => one - two);
    const every = panel.names.flatMap((_, name) =>
      groups.map((group) => ({ name, group, value: panel.values[name][group] })),
    );
    const reached = every.flatMap((each) =>
      each.value === null ? [] : [each.value, ...(ends(each.name, each.group) ?? [])],
    );
    const y = scaleLinear()
      .domain([Math.min(0, ...reached), Math.max(0, ...reached) || (reached.some((end) => end < 0) ? 0 : 1)])
      .nice();
    const left = room(y.ticks(5).map(short));
    const longest = Math.min(20, Math.max(0, ...panel.names.map((name) => plain(name).length)));
    const width = Math.max(given, left + 14 + every.length * 8);
    const step = (width - left - 14) / Math.max(1, panel.names.length);
    const turned = longest * 7 > step;
    const box: Box = {
      width,
      height: turned ? 290 + longest * 4.2 : 290,
      left,
      right: 14,
      top: 24,
      bottom: turned ? 22 + longest * 4.2 : 34,
    };
    y.range([box.height - box.bottom, box.top]);
    const outer = scaleBand<number>()
      .domain(panel.names.keys())
      .range([left, width - box.right])
      .paddingInner(0.25)
      .paddingOuter(0.15);
    const inner = scaleBand<number>()
      .domain(groups)
      .range([0, outer.bandwidth()])
      .padding(groups.length > 1 ? 0.06 : 0);
    const svg = drawing(place, width, box.height, label).attr("role", "group");
    upright(svg, y, box, panel.y);
    const axis = svg
      .append("g")
      .attr("class", "axis names")
      .attr("transform", `translate(0,${box.height - box.bottom})`);
    axis.call(
      axisBottom(outer)
        .tickFormat((at) => cut(plain(panel.names[at]), 20))
        .tickSize(0)
        .tickPadding(9),
    );
    if (turned) axis.selectAll("text").attr("text-anchor", "end").attr("transform", "rotate(-35) translate(-4,-2)");
    svg
      .append("line")
      .attr("class", "base")
      .attr("x1", left)
      .attr("x2", width - box.right)
      .attr("y1", y(0))
      .attr("y2", y(0));
    const items: SVGElement[] = [];
    for (const { name, group, value: height } of every) {
      if (height === null) continue;
      const x = (outer(name) ?? 0) + (inner(group) ?? 0);
      const wide = Math.min(inner.bandwidth(), 64);
      const middle = x + inner.bandwidth() / 2;
      const bar = svg
        .append("rect")
        .attr("class", "bar")
        .attr("x", middle - wide / 2)
        .attr("width", wide)
        .attr("rx", 2)
        .attr("y", Math.min(y(0), y(height)))
        .attr("height", Math.max(1, Math.abs(y(height) - y(0))))
        .attr("role", "img")
        .attr("aria-label", `${panel.names[name]}, ${panel.groups[group]}: ${value(name, group)}`)
        .style("fill", categoryName(group));
      const range = ends(name, group);
      if (range) {
        const [low, high, cap] = [y(range[0]), y(range[1]), Math.min(5, wide / 4)];
        svg
          .append("path")
          .attr("class", "error")
          .attr("d", `M${middle - cap},${low}h${2 * cap}M${middle},${low}V${high}M${middle - cap},${high}h${2 * cap}`);
      }
      const node = bar.node();
      if (node) {
        bar.on("pointermove", (event: PointerEvent) => showTip(event.clientX, event.clientY, tip(name, group)));
        bar.on("focus", () => node.matches(":focus-visible") && tipAt(node, tip(name, group)));
        bar.on("pointerleave", hideTip).on("blur", hideTip);
        items.push(node);
      }
    }
    if (svg.node()) roving(svg.node() as SVGSVGElement, items, groups.length);
  };

  if (panel.groups.length > 1) body.append(switches(panel.groups, shown, () => draw(place.clientWidth)));
  responsive(place, draw);
  const columns = panel.groups.flatMap((group) => (panel.ranges ? [group, `${group}, from`, "to"] : [group]));
  const rows = (): Cell[][] =>
    panel.names.map((name, at) => [
      name,
      ...panel.groups.flatMap((_, group) =>
        panel.ranges ? [panel.values[at][group], ...panel.ranges[at][group]] : [panel.values[at][group]],
      ),
    ]);
  body.append(figure(label, place), disclosure(["", ...columns], rows));
  return root;
}
