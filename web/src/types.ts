// What Python puts into the page: the panels of panels.py, as their as_dict() writes them.

/** A number, or null where Python had none that is finite. */
export type Value = number | null;

interface Head {
  title: string;
  note: string;
}

export interface Lines extends Head {
  kind: "lines";
  x: string;
  y: string;
  series: { name: string; x: Value[]; y: Value[] }[];
  marks: Record<string, number>;
}

export interface Heatmap extends Head {
  kind: "heatmap";
  x: string;
  y: string;
  values: Value[][];
  rows: string[] | null;
  columns: string[] | null;
  diverging: boolean;
  low: number;
  high: number;
}

export interface Bars extends Head {
  kind: "bars";
  y: string;
  names: string[];
  groups: string[];
  values: Value[][];
  /** By name and group the ends of an interval. */
  ranges: Value[][][] | null;
}

export interface Scatter extends Head {
  kind: "scatter";
  x: string;
  y: string;
  points: Value[][];
  names: string[];
  groups: string[];
}

export interface Words extends Head {
  kind: "words";
  words: string[];
  values: Value[];
  notes: string[];
  diverging: boolean;
  /** What some values are called, where they are kinds and not amounts. */
  key: Record<string, number>;
}

export type Cell = string | number | null;

export interface Table extends Head {
  kind: "table";
  columns: string[];
  rows: Cell[][];
}

/**
 * Code c of a weight says 2 ** ((1 - c) / octave), and 0 that it is below the cutoff and what its row has left is to be shared
 * among all such; codes of so many bits are deflated and in base64, in the order (layers, heads, L, L).
 */
export interface Attention extends Head {
  kind: "attention";
  tokens: string[];
  words: number[];
  sources: number[];
  layers: number[];
  heads: number[];
  /** What the tokens are: words where pieces were joined before. */
  unit: "token" | "word";
  /** The text of each run of pieces of one word, and the measures between words. */
  spelled: string[];
  measures: Record<string, Value[][]>;
  word_measures: Record<string, Value[][]>;
  bits: 8 | 16;
  octave: number;
  /** By layer and head: there are no weights. */
  gone: boolean[][];
  cutoff: number;
  error: number;
  share: number;
  weights: string;
}

export type Panel = Lines | Heatmap | Bars | Scatter | Words | Table | Attention;

export interface View {
  title: string;
  panels: Panel[];
  /** The files of all pages, where there are several, and which this one is. */
  pages: string[];
  here: number;
}
