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
  errors: Value[][] | null;
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
}

export type Cell = string | number | null;

export interface Table extends Head {
  kind: "table";
  columns: string[];
  rows: Cell[][];
}

/** Weights are (code / levels) squared; codes are deflated and in base64, in the order (layers, heads, L, L). */
export interface Attention extends Head {
  kind: "attention";
  tokens: string[];
  words: number[];
  sources: number[];
  layers: number[];
  heads: number;
  head_numbers?: number[];
  measures: Record<string, Value[][]>;
  levels: number;
  error: number;
  weights: string;
}

export type Panel = Lines | Heatmap | Bars | Scatter | Words | Table | Attention;

export interface View {
  title: string;
  panels: Panel[];
}
