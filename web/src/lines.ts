// Curves over one axis: the legend switches series, a crosshair reads the values.
import { bisectCenter, extent } from "d3-array";
import { scaleLinear } from "d3-scale";
import { pointer } from "d3-selection";
import { line } from "d3-shape";
import { categoryName } from "./colors";
import { h, say } from "./dom";
import { announcer, disclosure, figure, frame } from "./frame";
import { along, drawing, responsive, room, switches, upright, type Box } from "./plot";
import { exact, plain, short } from "./text";
import { hideTip, showTip } from "./tip";
import type { Cell, Lines } from "./types";

type Point = { x: number; y: number };

export function lines(panel: Lines): HTMLElement {
  const { root, body } = frame(panel);
  const series = panel.series.map(({ x, y }) =>
    x
      .map((each, at) => ({ x: each, y: y[at] ?? null }))
      .filter((point): point is { x: number; y: number | null } => point.x !== null),
  );
  const values = series.map((points) => new Map(points.map((point) => [point.x, point.y])));
  const shown = new Set(series.keys());
  const marks = Object.entries(panel.marks);
  const xs = [...new Set(series.flatMap((points) => points.map((point) => point.x)))].sort((one, two) => one - two);
  const place = h("div", { class: "plot" });
  const live = announcer();
  const names = panel.series.map((each) => each.name);
  const label = `${panel.y} by ${panel.x}: ${names.join(", ")}. Arrow keys read the values.`;

  const describe = (x: number): [string, number][] =>
    [...shown]
      .sort((one, two) => one - two)
      .flatMap((at) => (values[at].has(x) ? [[exact(values[at].get(x)), at] as [string, number]] : []));

  const draw = (width: number): void => {
    const [low = 0, high = 1] = extent([...xs, ...marks.map(([, at]) => at)]) as [number?, number?];
    const ys = [...shown].flatMap((at) => series[at].flatMap((point) => (point.y === null ? [] : [point.y])));
    const [least = 0, most = 1] = extent(ys) as [number?, number?];
    const spread = most - least || Math.abs(most) || 1;
    const y = scaleLinear()
      .domain(least === most ? [least - spread / 2, most + spread / 2] : [least, most])
      .nice();
    const box: Box = {
      width,
      height: 300,
      left: room(y.ticks(5).map(short)),
      right: 14,
      top: marks.length ? 40 : 24,
      bottom: 44,
    };
    y.range([box.height - box.bottom, box.top]);
    const x = scaleLinear()
      .domain(low === high ? [low - 0.5, high + 0.5] : [low, high])
      .range([box.left, width - box.right]);
    const svg = drawing(place, width, box.height, label).attr("tabindex", 0);
    upright(svg, y, box, panel.y);
    along(svg, x, box, panel.x);
    marks.forEach(([name, at]) => {
      const end = x(at) > width - 90;
      svg
        .append("line")
        .attr("class", "mark")
        .attr("x1", x(at))
        .attr("x2", x(at))
        .attr("y1", box.top - 8)
        .attr("y2", box.height - box.bottom);
      svg
        .append("text")
        .attr("class", "marked")
        .attr("x", x(at) + (end ? -5 : 5))
        .attr("y", box.top - 2)
        .attr("text-anchor", end ? "end" : "start")
        .text(plain(name));
    });
    const path = line<{ x: number; y: number | null }>(
      (point) => x(point.x),
      (point) => y(point.y ?? 0),
    ).defined((point) => point.y !== null);
    for (const at of shown) {
      svg.append("path").attr("class", "curve").attr("d", path(series[at])).style("stroke", categoryName(at));
      if (series[at].length <= 40) {
        const dots = series[at].filter((point): point is Point => point.y !== null);
        svg
          .append("g")
          .selectAll("circle")
          .data(dots)
          .join("circle")
          .attr("class", "dot")
          .attr("r", 2.5)
          .attr("cx", (point) => x(point.x))
          .attr("cy", (point) => y(point.y))
          .style("fill", categoryName(at));
      }
    }
    const cross = svg
      .append("line")
      .attr("class", "cross")
      .attr("y1", box.top)
      .attr("y2", box.height - box.bottom)
      .attr("visibility", "hidden");
    let current = -1;
    const read = (at: number, spoken: boolean): void => {
      current = Math.min(xs.length - 1, Math.max(0, at));
      const here = xs[current];
      cross.attr("x1", x(here)).attr("x2", x(here)).attr("visibility", "visible");
      const found = describe(here);
      const corner = place.getBoundingClientRect();
      showTip(corner.left + x(here), corner.top + box.top, [
        h("span", { class: "faint" }, say(plain(panel.x)), ` ${exact(here)}`),
        ...found.map(([value, number]) => {
          const key = h("span", { class: "key" });
          key.style.background = categoryName(number);
          return h("span", { class: "pair" }, key, say(plain(panel.series[number].name)), h("b", {}, value));
        }),
      ]);
      if (spoken)
        live.textContent = `${panel.x} ${exact(here)}: ${found.map(([value, at]) => `${names[at]} ${value}`).join(", ")}`;
    };
    const leave = (): void => {
      cross.attr("visibility", "hidden");
      hideTip();
    };
    svg.on(
      "pointermove",
      (event: PointerEvent) => xs.length && read(bisectCenter(xs, x.invert(pointer(event)[0])), false),
    );
    svg.on("pointerleave", leave).on("blur", leave);
    svg.on("keydown", (event: KeyboardEvent) => {
      const steps: Record<string, number> = {
        ArrowLeft: current - 1,
        ArrowRight: current + 1,
        Home: 0,
        End: xs.length - 1,
      };
      if (xs.length && event.key in steps) {
        event.preventDefault();
        read(steps[event.key], true);
      }
    });
  };

  const legend = switches(
    panel.series.map((each) => each.name),
    shown,
    () => draw(place.clientWidth),
  );
  responsive(place, draw);
  const rows = (): Cell[][] => xs.map((x) => [exact(x), ...values.map((each) => each.get(x) ?? null)]);
  body.append(
    legend,
    figure(label, place),
    live,
    disclosure([panel.x, ...panel.series.map((each) => each.name)], rows),
  );
  return root;
}
