import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [svelte()],
  build: {
    target: "es2022",
    // The folder itself is tracked through a file of its own inside; emptying it is xtask's chore.
    emptyOutDir: false,
    // One document serves the Content-Security-Policy `default-src 'self'`: nothing may be inlined as data:.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
});
