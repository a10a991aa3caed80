// What was done from here and what runs: asked for every second or so, and one way to stop it all.

export interface Done {
  id: number;
  at: number;
  who: string;
  what: string;
  state: string;
  ends_at: number | null;
  ended_at: number | null;
  said: string;
}

const BROKEN_MS = 60_000;

export class Acts {
  done = $state.raw<Done[]>([]);
  now = $state(Date.now());
  /** What was answered last. */
  said = $state<string | null>(null);
  /** A scenario that somebody's promise ended must not end unseen: said on every view for a while. */
  broken = $derived(this.done.filter((act) => act.state === "ended" && act.said.startsWith("stopped by its guard") && this.now - (act.ended_at ?? 0) < BROKEN_MS));
  running = $derived(this.done.filter((act) => act.state === "running"));

  /** Asks until it is told to stop. */
  follow(everyMs: number): () => void {
    let stopped = false;
    const load = async () => {
      if (document.hidden) return;
      const answer = await fetch("/v1/acts").catch(() => null);
      const done = answer?.ok ? ((await answer.json().catch(() => null)) as Done[] | null) : null;
      if (done && !stopped) this.done = done;
      this.now = Date.now();
    };
    void load();
    const timer = setInterval(() => void load(), everyMs);
    return () => {
      stopped = true;
      clearInterval(timer);
    };
  }

  async act(body: object, who: string): Promise<void> {
    try {
      const answer = await fetch("/v1/act", {
        method: "POST",
        // A header holds no letters beyond ASCII.
        headers: { "Content-Type": "application/json", "X-Isobar-Act": "1", ...(who === "" ? {} : { "X-Isobar-User": who.replace(/[^\x20-\x7e]/g, "?") }) },
        body: JSON.stringify(body),
      });
      const reply = (await answer.json().catch(() => ({}))) as { said?: string; error?: string };
      this.said = answer.ok ? (reply.said ?? "done") : (reply.error ?? `refused: ${answer.status}`);
    } catch (error) {
      this.said = error instanceof Error ? error.message : String(error);
    }
  }

  /** Seconds until it is undone by itself; `null`: it does not say. */
  left(act: Done): number | null {
    return act.ends_at === null ? null : Math.max(0, Math.round((act.ends_at - this.now) / 1000));
  }
}

const WHO = "isobar.who";

/** Who presses, for the record; nobody checks it. */
export function remembered(): string {
  try {
    return localStorage.getItem(WHO) ?? "";
  } catch {
    return "";
  }
}

export function remember(who: string): void {
  try {
    localStorage.setItem(WHO, who);
  } catch {
    // Then it is asked again.
  }
}
