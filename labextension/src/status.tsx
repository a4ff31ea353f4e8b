/** The item in the status bar: what is left on the dataset of the active cell, and what is pending. */
import React from 'react';
import { ReactWidget } from '@jupyterlab/ui-components';
import { status } from './state.js';
import type { Workbench } from './state.js';

export class StatusItem extends ReactWidget {
  constructor(private _bench: Workbench, private _code: () => string, private _open: () => void) {
    super();
    this.addClass('syft-Status');
    _bench.changed.connect(() => this.update());
  }

  protected render(): JSX.Element | null {
    const said = status(this._bench.owner, this._bench.analyst, this._code());
    if (!said) return null;
    return (
      <button type="button" title={said.title} aria-label={`Syft Lab: ${said.title.replace(/\n/g, '; ')}`} onClick={this._open}>
        {said.text}
      </button>
    );
  }
}
