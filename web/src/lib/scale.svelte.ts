// Which drawing is wanted and the numbers it needs besides frames. The plain map needs neither: the first picture waits for
// nothing but the map.

import type { MapDoc } from "./protocol";
import type { Group } from "./where.svelte";
import { plain, VISIBLE_MAX, type View, type Zoom } from "./view";

const ZOOM_MS = 1_000;

export class Scale {
  view = $state.raw<View | null>(null);
  zoom = $state.raw<Zoom | null>(null);
  trouble = $state<string | null>(null);

  #wanted = "";

  /** Call it when any of these change. */
  async want(doc: MapDoc, group: Group, open: string[]): Promise<void> {
    const key = `${doc.revision} ${group} ${open.join(",")}`;
    if (key === this.#wanted) return;
    this.#wanted = key;
    if (group === "service" || (group === "auto" && doc.nodes.length <= VISIBLE_MAX)) {
      this.view = plain(doc);
      this.trouble = null;
      return;
    }
    try {
      const answer = await fetch(`/v1/map/view?by=${group}&open=${encodeURIComponent(open.join(","))}`);
      if (!answer.ok) throw new Error(`this drawing was refused: ${answer.status}`);
      const view = (await answer.json()) as View;
      if (key !== this.#wanted) return;
      this.view = view;
      this.trouble = null;
    } catch (error) {
      if (key !== this.#wanted) return;
      this.#wanted = "";
      this.trouble = error instanceof Error ? error.message : String(error);
    }
  }

  /** Asks every second while somebody looks at what needs it. `nodes`: whose instances; "all" for everybody's health. */
  follow(nodes: string): () => void {
    let stopped = false;
    let timer: ReturnType<typeof setTimeout>;
    const ask = async () => {
      if (!document.hidden) {
        const answer = await fetch(`/v1/zoom?nodes=${nodes}`).catch(() => null);
        if (answer?.ok && !stopped) this.zoom = (await answer.json()) as Zoom;
      }
      if (!stopped) timer = setTimeout(() => void ask(), ZOOM_MS);
    };
    void ask();
    return () => {
      stopped = true;
      clearTimeout(timer);
      this.zoom = null;
    };
  }
}
