// A grid of coloured cells on a canvas: labels where they fit, a cell under the pointer or the arrow keys, zoom.
//
// One pixel a cell is painted once; what is in the window is drawn from that, so that a million cells scroll smoothly.
import { h, perFrame, prepared } from "./dom";
import { announcer } from "./frame";
import { cut } from "./text";
import { onTheme } from "./theme";
import { hideTip, showTip, type TipLine } from "./tip";

export interface Content {
  rows: readonly string[];
  columns: readonly string[];
  /** Writes one pixel (ABGR) a cell, row after row. */
  paint: (pixels: Uint32Array) => void;
  /** What is said of a cell: lines beside the pointer, and a sentence. */
  describe: (row: number, column: number) => { lines: readonly TipLine[]; text: string };
  /** Names are numbers, some of which say what those between them are. */
  numbered?: { rows: boolean; columns: boolean };
  /** Where names do not fit, the number of a row or column says which it is. */
  counted?: boolean;
  /** Rows and columns whose names stand out. */
  found?: { rows: ReadonlySet<number>; columns: ReadonlySet<number> };
}

const FONT = "12px system-ui, sans-serif";
/** A name needs a cell this large; a square cell is at most this large. */
const NAMED = 11;
const LARGEST = 34;
const GUTTER = 130;
const TALLEST = 680;

/** Every which name has room: all, none, or of numbers every so many. */
function every(size: number, room: number, numbered = false): number {
  if (size >= NAMED) return 1;
  if (!numbered) return Infinity;
  const least = room / size;
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((times) => times * power).find((step) => step >= least) ?? Infinity;
}

export class Cells {
  readonly root: HTMLElement;
  private readonly canvas = h("canvas", { tabindex: 0, role: "application", "aria-roledescription": "heat map" });
  private readonly spacer = h("div", { class: "spacer" });
  private readonly view: HTMLElement;
  private readonly live = announcer();
  private readonly image = document.createElement("canvas");
  private content: Content | null = null;
  private current: { row: number; column: number } | null = null;
  private size = { width: 1, height: 1, left: 0, top: 0, turned: true, rows: 1, columns: 1 };
  private scale = 1;
  private labels: { rows: readonly string[]; columns: readonly string[] } = { rows: [], columns: [] };
  readonly redraw = perFrame(() => this.draw());

  constructor(
    label: string,
    private readonly square: boolean,
  ) {
    this.canvas.setAttribute("aria-label", `${label}. Arrow keys read the cells.`);
    this.spacer.append(this.canvas);
    this.view = h("div", { class: "cells" }, this.spacer);
    this.root = h("div", {}, this.view, this.live);
    this.view.addEventListener("scroll", () => (hideTip(), this.redraw()), { passive: true });
    new ResizeObserver(() => this.redraw()).observe(this.view);
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerdown", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => this.leave());
    this.canvas.addEventListener("blur", () => this.leave());
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    onTheme(() => {
      this.paint();
      this.draw();
    });
  }

  /** Other cells, or the same ones in other colours. */
  show(content: Content): void {
    const same =
      content.rows.length === this.content?.rows.length && content.columns.length === this.content.columns.length;
    this.content = content;
    if (!same) this.current = null;
    this.paint();
  }

  /** How many times larger than fits the window. */
  zoom(times: number): void {
    this.scale = times;
    this.redraw();
  }

  private paint(): void {
    if (!this.content) return;
    const [rows, columns] = [this.content.rows.length, this.content.columns.length];
    if (!rows || !columns) return;
    [this.image.width, this.image.height] = [columns, rows];
    const context = this.image.getContext("2d");
    const data = new ImageData(columns, rows);
    this.content.paint(new Uint32Array(data.data.buffer));
    context?.putImageData(data, 0, 0);
    this.redraw();
  }

  private measure(context: CanvasRenderingContext2D, content: Content): void {
    const width = this.view.clientWidth;
    const [rows, columns] = [content.rows.length, content.columns.length];
    context.font = FONT;
    const longest = (names: readonly string[]): number =>
      names.reduce((most, name) => Math.max(most, context.measureText(cut(name, 22)).width), 0);
    const counts = (names: readonly string[]): string[] => names.map((_, at) => String(at));
    const named = Math.min(TALLEST / rows, width / columns) * this.scale >= NAMED;
    const counted = content.counted === true && !named;
    this.labels = counted ? { rows: counts(content.rows), columns: counts(content.columns) } : content;
    const gutter = Math.min(GUTTER, width * 0.3, longest(this.labels.rows) + 12);
    const high = (TALLEST - 100) / rows;
    const fit = (left: number): number => (width - left - 10) / columns;
    const wide = (this.square ? Math.min(LARGEST, fit(gutter), high) : Math.min(96, fit(gutter))) * this.scale;
    const tall = this.square ? wide : Math.min(30, Math.max(content.numbered?.rows ? 1 : 4, high)) * this.scale;
    const across = longest(this.labels.columns);
    const nth = {
      rows: every(tall, 22, counted || content.numbered?.rows),
      columns: every(wide, across + 16, counted || content.numbered?.columns),
    };
    const left = nth.rows < Infinity ? gutter : 10;
    const turned = nth.columns === 1 && across + 8 > wide;
    const top = nth.columns < Infinity ? (turned ? Math.min(GUTTER, across + 12) : 24) : 10;
    this.size = { width: wide, height: tall, left, top, turned, ...nth };
  }

  private draw(): void {
    const content = this.content;
    const context = this.canvas.getContext("2d");
    if (!content || !context || !this.view.clientWidth) return;
    this.measure(context, content);
    const { width, height, left, top, turned, rows: nthRow, columns: nthColumn } = this.size;
    const [rows, columns] = [content.rows.length, content.columns.length];
    const [full, long] = [left + columns * width + 10, top + rows * height + 10];
    this.view.style.height = `${Math.ceil(Math.min(long, TALLEST))}px`;
    this.spacer.style.width = `${Math.floor(full)}px`;
    this.spacer.style.height = `${Math.floor(long)}px`;
    const seen = { width: this.view.clientWidth, height: this.view.clientHeight };
    prepared(this.canvas, seen.width, seen.height);
    const [x0, y0] = [this.view.scrollLeft, this.view.scrollTop];
    context.save();
    context.beginPath();
    context.rect(left, top, seen.width - left, seen.height - top);
    context.clip();
    context.imageSmoothingEnabled = width < 1;
    context.drawImage(this.image, left - x0, top - y0, columns * width, rows * height);
    const style = getComputedStyle(this.canvas);
    const [ink, faint, accent] = ["--ink", "--muted", "--accent"].map((name) => style.getPropertyValue(name));
    if (this.current) {
      const { row, column } = this.current;
      context.strokeStyle = accent;
      context.lineWidth = 1;
      context.globalAlpha = 0.55;
      context.strokeRect(left - x0, top - y0 + row * height, columns * width, height);
      context.strokeRect(left - x0 + column * width, top - y0, width, rows * height);
      context.globalAlpha = 1;
      context.lineWidth = 2;
      context.strokeRect(left - x0 + column * width, top - y0 + row * height, Math.max(2, width), Math.max(2, height));
    }
    context.restore();
    context.font = FONT;
    const style_of = (strong: boolean): void => {
      context.fillStyle = strong ? ink : faint;
      context.font = strong ? `600 ${FONT}` : FONT;
    };
    context.textBaseline = "middle";
    const first = Math.max(0, Math.floor(y0 / height));
    for (let row = first; row < rows && top + row * height - y0 < seen.height; row++) {
      const y = top + (row + 0.5) * height - y0;
      const marked = content.found?.rows.has(row) ?? false;
      if (y < top) continue;
      if (nthRow < Infinity && row % nthRow === 0) {
        style_of(marked || this.current?.row === row);
        context.textAlign = "right";
        context.fillText(this.fitting(context, this.labels.rows[row], left - 10), left - 7, y);
      }
      if (marked) {
        context.fillStyle = accent;
        context.fillRect(left - 5, y - height / 2, 3, Math.max(1, height - 1));
      }
    }
    for (
      let column = Math.max(0, Math.floor(x0 / width));
      column < columns && left + column * width - x0 < seen.width;
      column++
    ) {
      const x = left + (column + 0.5) * width - x0;
      const marked = content.found?.columns.has(column) ?? false;
      if (x < left) continue;
      if (nthColumn < Infinity && column % nthColumn === 0) {
        style_of(marked || this.current?.column === column);
        context.save();
        context.translate(x, top - 8);
        if (turned) context.rotate(-Math.PI / 2);
        context.textAlign = turned ? "left" : "center";
        context.fillText(
          turned ? this.fitting(context, this.labels.columns[column], top - 10) : this.labels.columns[column],
          0,
          turned ? 0 : -4,
        );
        context.restore();
      }
      if (marked) {
        context.fillStyle = accent;
        context.fillRect(x - width / 2, top - 5, Math.max(1, width - 1), 3);
      }
    }
  }

  private fitting(context: CanvasRenderingContext2D, name: string, room: number): string {
    let shown = cut(name, 22);
    while (shown.length > 2 && context.measureText(shown).width > room) shown = cut(name, [...shown].length - 1);
    return shown;
  }

  private at(event: PointerEvent): { row: number; column: number } | null {
    const { width, height, left, top } = this.size;
    const corner = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - corner.left - left, event.clientY - corner.top - top];
    const column = Math.floor((x + this.view.scrollLeft) / width);
    const row = Math.floor((y + this.view.scrollTop) / height);
    const inside =
      x >= 0 && y >= 0 && row < (this.content?.rows.length ?? 0) && column < (this.content?.columns.length ?? 0);
    return inside ? { row, column } : null;
  }

  private point(event: PointerEvent): void {
    const cell = this.at(event);
    if (!cell || !this.content) {
      this.leave();
      return;
    }
    this.current = cell;
    showTip(event.clientX, event.clientY, this.content.describe(cell.row, cell.column).lines);
    this.redraw();
  }

  private leave(): void {
    hideTip();
    if (document.activeElement !== this.canvas) this.current = null;
    this.redraw();
  }

  private key(event: KeyboardEvent): void {
    const content = this.content;
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!content || !step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const clamp = (value: number, size: number): number => Math.min(size - 1, Math.max(0, value));
    const far = event.shiftKey ? 10 : 1;
    const from = this.current ?? { row: -Math.max(0, step[0]), column: -Math.max(0, step[1]) };
    const row = clamp(from.row + far * step[0], content.rows.length);
    const column = clamp(from.column + far * step[1], content.columns.length);
    this.current = { row, column };
    const { width, height, left, top } = this.size;
    const view = this.view;
    const into = (place: number, size: number, start: number, room: number): number =>
      place < start ? place : place + size > start + room ? place + size - room : start;
    view.scrollLeft = into(column * width, width, view.scrollLeft, view.clientWidth - left);
    view.scrollTop = into(row * height, height, view.scrollTop, view.clientHeight - top);
    const said = content.describe(row, column);
    const corner = this.canvas.getBoundingClientRect();
    showTip(
      corner.left + left + (column + 1) * width - view.scrollLeft,
      corner.top + top + (row + 1) * height - view.scrollTop,
      said.lines,
    );
    this.live.textContent = said.text;
    this.redraw();
  }
}
