/** Our icons: drawn by hand, in one colour that the theme gives. */
import { LabIcon } from '@jupyterlab/ui-components';

const svg = (inside: string) =>
  `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 16 16"><g class="jp-icon3" fill="none" stroke="#616161" stroke-width="1.4" stroke-linecap="round" stroke-linejoin="round">${inside}</g></svg>`;

/** Two notebooks and the line between them. */
export const syftIcon = new LabIcon({
  name: 'syft-lab:icon',
  svgstr: svg('<rect x="1.5" y="4" width="4.5" height="8" rx="1"/><rect x="10" y="4" width="4.5" height="8" rx="1"/><path d="M6 8h4M8 6.6v2.8"/>')
});

/** A cell that is sent away. */
export const remoteIcon = new LabIcon({
  name: 'syft-lab:remote',
  svgstr: svg('<path d="M7 3H3.5a1 1 0 0 0-1 1v8a1 1 0 0 0 1 1H12a1 1 0 0 0 1-1V9"/><path d="M9.5 2.5h4v4M13.2 2.8 7.5 8.5"/>')
});

/** A flask: tried here, on made-up data. */
export const mockIcon = new LabIcon({
  name: 'syft-lab:mock',
  svgstr: svg('<path d="M6 2h4M6.7 2v4.2L3.2 12a1.3 1.3 0 0 0 1.1 2h7.4a1.3 1.3 0 0 0 1.1-2L9.3 6.2V2M4.8 10h6.4"/>')
});
