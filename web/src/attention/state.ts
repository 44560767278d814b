// What the reader has chosen in one attention panel; the views draw again when it changes.

export const SEGMENTS = [
  ["all", "all"],
  ["forth", "first text reads second"],
  ["back", "second text reads first"],
  ["within", "within each text"],
] as const;
export type Segment = (typeof SEGMENTS)[number][0];

export interface State {
  /** Places in the panel's lists, not the numbers that stand there. */
  layer: number;
  head: number;
  /** The heads whose lines are drawn. */
  heads: ReadonlySet<number>;
  /** Weights below this are left out. */
  threshold: number;
  segment: Segment;
  joined: boolean;
  query: string;
  /** Which of the units found is looked at, counting on and on. */
  sought: number;
}

export class Store {
  private readonly listeners = new Set<(changed: ReadonlySet<keyof State>) => void>();

  constructor(private state: State) {}

  get now(): Readonly<State> {
    return this.state;
  }

  set(change: Partial<State>): void {
    const names = (Object.keys(change) as (keyof State)[]).filter((name) => this.state[name] !== change[name]);
    if (!names.length) return;
    this.state = { ...this.state, ...change };
    const changed = new Set(names);
    for (const listener of this.listeners) listener(changed);
  }

  on(listener: (changed: ReadonlySet<keyof State>) => void): void {
    this.listeners.add(listener);
  }
}

/** Whether the one of the first source reads the other in this choice of texts. */
export function allowed(segment: Segment, reader: number, read: number): boolean {
  if (segment === "all") return true;
  if (segment === "forth") return reader === 0 && read === 1;
  if (segment === "back") return reader === 1 && read === 0;
  return reader >= 0 && reader === read;
}
