// Builds the page: one HTML file that asks for nothing, and whose only script is allowed by its hash.
import { createHash } from "node:crypto";
import { defineConfig, type Plugin } from "vite";

/** Where Python puts the data; view.py looks for exactly this. */
const PLACE = '<script type="application/json" id="view">{}</script>';
const SCRIPT = /<script type="module"[^>]* src="[^"]*"><\/script>/;
const STYLE = /<link rel="stylesheet"[^>]*>/;

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
