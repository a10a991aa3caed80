// The same scene in two dimensions, where there is no WebGL2. Slower, and therefore with fewer particles; not less true.

import { toScreen, type Camera, type Size } from "./camera";
import type { Renderer } from "./gl";
import { css, type Palette, type Rgb } from "./palette";
import { EDGE_FLOATS, EDGE_POINTS, NODE_FLOATS, particles, particleSlots, SHAPES, unit, type Geometry, type Scene } from "./scene";

export function canvasRenderer(canvas: HTMLCanvasElement, first: Palette): Renderer {
  const paper = canvas.getContext("2d");
  let palette = first;
  let geo: Geometry | null = null;
  let scene: Scene | null = null;

  const healthColor = (index: number): Rgb => [palette.idle, palette.ok, palette.warn, palette.bad][Math.round(index)] ?? palette.idle;

  return {
    budget: 2_000,
    theme(next) {
      palette = next;
    },
    load(next) {
      geo = next;
    },
    update(next) {
      scene = next;
    },
    draw(camera: Camera, size: Size, ratio: number, age: number, moving: boolean) {
      if (!paper) return;
      paper.setTransform(ratio, 0, 0, ratio, 0, 0);
      paper.globalAlpha = 1;
      paper.fillStyle = css(palette.background);
      paper.fillRect(0, 0, size.width, size.height);
      if (!geo || !scene) return;
      const at = (row: number, k: number): [number, number] => {
        const i = (row * EDGE_POINTS + k) * 2;
        return toScreen(camera, size, geo!.edgePoints[i] ?? 0, geo!.edgePoints[i + 1] ?? 0);
      };
      for (const row of scene.order) {
        const [width = 1, state = 0, opacity = 1, dashes = 0] = scene.edges.subarray(row * EDGE_FLOATS, row * EDGE_FLOATS + 4);
        paper.globalAlpha = opacity * (state > 2.5 ? 0.8 : 0.6);
        paper.strokeStyle = css(healthColor(state));
        paper.lineWidth = width * Math.min(1.6, Math.max(0.35, camera.scale));
        paper.setLineDash(dashes > 0.5 ? [6, 5] : []);
        paper.beginPath();
        for (let k = 0; k < EDGE_POINTS; k += 1) {
          const [x, y] = at(row, k);
          if (k === 0) paper.moveTo(x, y);
          else paper.lineTo(x, y);
        }
        paper.stroke();
      }
      paper.setLineDash([]);
      if (moving && geo.view.edges.length > 0) {
        const slots = particleSlots(this.budget, geo.view.edges.length);
        for (const i of particles(scene.edges, geo.view.edges.length, slots)) {
          const row = Math.floor(i / slots);
          const [phase = 0, speed = 0, , errors = 0] = scene.edges.subarray(row * EDGE_FLOATS + 4, row * EDGE_FLOATS + 8);
          const whole = phase + speed * age + unit(i * 3);
          const where = (whole - Math.floor(whole)) * (EDGE_POINTS - 1);
          const k = Math.min(Math.floor(where), EDGE_POINTS - 2);
          const [x0, y0] = at(row, k);
          const [x1, y1] = at(row, k + 1);
          const failed = unit(i * 3 + 2) < errors;
          paper.fillStyle = css(failed ? palette.bad : palette.dot);
          const r = failed ? 3 : 1.8;
          paper.fillRect(x0 + (x1 - x0) * (where - k) - r, y0 + (y1 - y0) * (where - k) - r, 2 * r, 2 * r);
        }
      }
      for (let row = 0; row < geo.view.nodes.length; row += 1) {
        const [x = 0, y = 0, w = 0, h = 0, state = 0, full = 0, kind = 0, flags = 0, newest = -1] = scene.nodes.subarray(row * NODE_FLOATS, (row + 1) * NODE_FLOATS);
        const [cx, cy] = toScreen(camera, size, x, y);
        const [hw, hh] = [w * camera.scale, h * camera.scale];
        paper.globalAlpha = (flags & 1) !== 0 ? 0.28 : 1;
        paper.fillStyle = css(palette.panel);
        paper.strokeStyle = css((flags & 2) !== 0 ? palette.accent : healthColor(state));
        paper.lineWidth = (flags & 6) !== 0 || state > 2.5 ? 3 : 2;
        if (kind === SHAPES.stack) paper.strokeRect(cx - hw + 5 * camera.scale, cy - hh - 5 * camera.scale, hw * 2 - 10 * camera.scale, 5 * camera.scale);
        paper.beginPath();
        if (kind === SHAPES.diamond || kind === SHAPES.hexagon) {
          const inset = kind === SHAPES.diamond ? hw * 0.45 : hh * 0.5;
          paper.moveTo(cx - hw, cy);
          for (const [px, py] of [[cx - hw + inset, cy - hh], [cx + hw - inset, cy - hh], [cx + hw, cy], [cx + hw - inset, cy + hh], [cx - hw + inset, cy + hh]] as const) paper.lineTo(px, py);
          paper.closePath();
        } else {
          paper.roundRect(cx - hw, cy - hh, hw * 2, hh * 2, kind === SHAPES.pill ? hh : 6 * camera.scale);
        }
        paper.fill();
        paper.stroke();
        paper.fillStyle = css(healthColor(state));
        paper.fillRect(cx - hw + 3, cy + hh - 4 * camera.scale, (hw * 2 - 6) * Math.min(1, full), 3 * camera.scale);
        if (newest >= 0) {
          paper.fillStyle = css(palette.accent);
          paper.fillRect(cx - hw + 3, cy - hh + camera.scale, (hw * 2 - 6) * newest, 3 * camera.scale);
        }
      }
      paper.globalAlpha = 1;
    },
    dispose() {},
  };
}
