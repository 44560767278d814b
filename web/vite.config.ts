// Builds the page: one HTML file that asks for nothing, and whose only script is allowed by its hash.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { defineConfig, type Plugin } from "vite";

/** Where Python puts the data; view.py looks for exactly this. */
const PLACE = '<script type="application/json" id="view">{}</script>';
const SCRIPT = /<script type="module"[^>]* src="[^"]*"><\/script>/;
const STYLE = /<link rel="stylesheet"[^>]*>/;

/** A hash of everything that the page is built from, as tests/inspect/test_page.py takes it of the files that are there. */
function sourceHash(): string {
  const inside = readdirSync("src", { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => `${entry.parentPath}/${entry.name}`);
  const files = [...inside, "package-lock.json", "page.html", "tsconfig.json", "vite.config.ts"].sort();
  return files.reduce((hash, file) => hash.update(`${file}\0`).update(readFileSync(file)), createHash("sha256")).digest("hex");
}

/** Puts script and styles into the page, and says by a hash that no other script may run. */
function inlined(): Plugin {
  const handler: Plugin["generateBundle"] = (_, bundle) => {
    const page = bundle["page.html"];
    const files = Object.values(bundle).filter((file) => file !== page);
    const script = files.find((file) => file.type === "chunk");
    const style = files.find((file) => file.type === "asset");
    if (page?.type !== "asset" || script?.type !== "chunk" || style?.type !== "asset" || files.length !== 2) {
      throw new Error(`a page, a script and a style sheet are expected, not ${Object.keys(bundle).join(", ")}`);
    }
    const code = script.code.trim().replaceAll("</script", "<\\/script");
    const hash = createHash("sha256").update(code).digest("base64");
    const put = (html: string, place: RegExp | string, text: string): string => {
      if (html.split(place).length !== 2) throw new Error(`the page has ${place} not once`);
      return html.replace(place, () => text);
    };
    let html = put(String(page.source), "'sha256-'", `'sha256-${hash}'`);
    html = put(html, STYLE, `<style>${String(style.source).trim()}</style>`);
    html = put(html, SCRIPT, `<script type="module">${code}</script>`);
    html = put(html, 'name="source" content=""', `name="source" content="${sourceHash()}"`);
    page.source = put(html, PLACE, PLACE);
    for (const file of files) delete bundle[file.fileName];
  };
  return { name: "inlined", generateBundle: { order: "post", handler } };
}

export default defineConfig({
  base: "./",
  publicDir: false,
  plugins: [inlined()],
  build: {
    target: ["chrome123", "firefox128", "safari17.5"],
    outDir: "../src/clozeline/inspect",
    emptyOutDir: false,
    cssCodeSplit: false,
    modulePreload: false,
    reportCompressedSize: false,
    rolldownOptions: { input: "page.html" },
  },
});
