// Light or dark: as the system has it, until the reader says otherwise; paper is always light.
import { button } from "./dom";

type Theme = "light" | "dark";

const system = window.matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set<() => void>();
let asked: Theme | null = null;
let printing = false;

export function dark(): boolean {
  if (printing) return false;
  return asked ? asked === "dark" : system.matches;
}

/** Draw again when the colours change. */
export function onTheme(act: () => void): void {
  listeners.add(act);
}

function apply(): void {
  document.documentElement.dataset["theme"] = dark() ? "dark" : "light";
  for (const act of listeners) act();
}

/** Follows the system and the printer, and gives the button that overrides the system. */
export function startTheme(): HTMLButtonElement {
  const name = (): string => (dark() ? "Light" : "Dark");
  const toggle = button(name(), { class: "quiet", id: "theme", "aria-label": "Change between light and dark" }, () => {
    asked = dark() ? "light" : "dark";
    apply();
  });
  onTheme(() => toggle.replaceChildren(name()));
  system.addEventListener("change", apply);
  window.addEventListener("beforeprint", () => {
    printing = true;
    apply();
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    apply();
  });
  apply();
  return toggle;
}
