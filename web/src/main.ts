// Opens the page: reads what Python put into it and draws one section a panel.
import "./style/base.css";
import "./style/panels.css";
import "./style/attention.css";
import "./style/print.css";
import { attention } from "./attention/panel";
import { bars } from "./bars";
import { startColors } from "./colors";
import { h } from "./dom";
import { heatmap } from "./heatmap";
import { lines } from "./lines";
import { scatter } from "./scatter";
import { table } from "./table";
import { startTheme } from "./theme";
import { startTip } from "./tip";
import type { Panel, View } from "./types";
import { words } from "./words";

function draw(panel: Panel): HTMLElement {
  switch (panel.kind) {
    case "lines":
      return lines(panel);
    case "heatmap":
      return heatmap(panel);
    case "bars":
      return bars(panel);
    case "scatter":
      return scatter(panel);
    case "words":
      return words(panel);
    case "table":
      return table(panel);
    case "attention":
      return attention(panel);
  }
  return h("p", { class: "note" }, "This page does not know one of its panels; it was made by another version.");
}

/** Charts stand two in a row; one that would stand alone takes the whole row. */
function arrange(main: HTMLElement, panels: readonly Panel[]): void {
  const half = (panel: Panel | undefined): string =>
    panel?.kind === "attention"
      ? "attention"
      : panel && ["lines", "heatmap", "bars", "scatter"].includes(panel.kind)
        ? "chart"
        : "";
  let run = 0;
  panels.forEach((panel, at) => {
    const section = draw(panel);
    const kind = half(panel);
    run = kind && kind === half(panels[at - 1]) ? run + 1 : 0;
    const alone = run % 2 === 0 && kind !== half(panels[at + 1]);
    if (kind && !alone) section.classList.add("half");
    main.append(section);
  });
}

function start(): void {
  const page = document.getElementById("page");
  const data = document.getElementById("view");
  if (!page || !data) return;
  const view = JSON.parse(data.textContent || "{}") as Partial<View>;
  const title = view.title ?? "Nothing to see yet";
  document.title = title;
  startColors();
  startTip();
  const main = h("main");
  const pages = view.pages ?? [];
  const links = pages.map((name, at) =>
    h("a", { href: encodeURIComponent(name), ...(at === view.here && { "aria-current": "page" }) }, `${at + 1}`),
  );
  page.append(h("header", {}, h("h1", { dir: "auto" }, title), startTheme()), ...(links.length ? [h("nav", { "aria-label": "Parts" }, "Part ", ...links)] : []), main);
  arrange(main, view.panels ?? []);
  page.dataset["ready"] = "true";
}

start();
