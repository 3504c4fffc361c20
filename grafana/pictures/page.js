/** `model` in (layout.py): texts, colours and places; the page out. ECharts draws the lines. */
const add = (parent, tag, className = '', text = '', style = {}) => {
  const made = parent.appendChild(document.createElement(tag));
  Object.assign(made, { className, textContent: text });
  Object.assign(made.style, style);
  return made;
};

const stat = (section, { rows }) => {
  const grid = add(section, 'div', 'tiles');
  grid.style.setProperty('--letters', Math.max(...rows.map((cells) => cells.at(-1).text.length)));
  for (const [name, , { text, color }] of rows) {
    const tile = add(grid, 'div', 'tile');
    add(tile, 'span', 'name', name.text);
    add(tile, 'b', '', text, { color });
  }
};

/** What has no room in the box is left out, and how much that is said. */
const table = (box, { head = [], rows }) => {
  const grid = add(box, 'table');
  for (const cells of [head, ...rows].filter(({ length }) => length)) {
    const line = add(grid, 'tr');
    cells.forEach(({ text, color, share }, at) => {
      const backgroundImage = share === undefined ? '' : `linear-gradient(90deg, ${color} ${share * 100}%, #22252b 0)`;
      add(line, 'td', head[at]?.number ? 'number' : '', text, { color, backgroundImage });
    });
  }
  const note = add(box, 'div', 'quiet');
  for (let left = 1; box.scrollHeight > box.clientHeight && grid.childElementCount > 1; left += 1) {
    grid.lastChild.remove();
    note.textContent = `${left} more`;
  }
};

const timeseries = (section, { series, custom, axis: { high, whole, size, form }, limits, head, rows }) => {
  const chart = add(section, 'div', 'chart');
  table(add(section, 'div', head.length ? 'legend values' : 'legend'), { head, rows });
  const [start, end, step] = model.range;
  const label = { fontSize: 11, color: '#9fa7b3' };
  const splitLine = { show: true, lineStyle: { color: '#25272e' } };
  const look = { axisLine: { show: false }, axisTick: { show: false }, splitLine };
  const formatter = (value) => form.replace('#', value.toLocaleString('en', { maximumFractionDigits: 9 }));
  const dashes = limits.map(({ value, color }) => ({ yAxis: value / size, lineStyle: { color, type: [8, 6] } }));
  const areas = model.regions.map(({ from, to, text, color }) => [
    { xAxis: from, name: text, itemStyle: { color, opacity: 0.18 }, label: { ...label, color } }, { xAxis: to },
  ]);
  echarts.init(chart, null, { renderer: 'svg' }).setOption({
    animation: false, useUTC: true, textStyle: { fontFamily: 'Inter' },
    grid: { left: 4, right: 14, top: areas.length ? 20 : 8, bottom: 2, containLabel: true },
    xAxis: { ...look, type: 'time', min: start, max: end, axisLabel: label, splitNumber: chart.clientWidth / 95 },
    yAxis: { ...look, dataMax: high / size, minInterval: whole ? 1 / size : 0, axisLabel: { ...label, formatter } },
    series: series.map(({ color, values }, index) => ({
      type: 'line', symbol: 'none', stack: custom.stacking?.mode,
      lineStyle: { color, width: custom.lineWidth }, areaStyle: { color, opacity: custom.fillOpacity / 100 },
      data: values.map((value, at) => [start + at * step, value === null ? null : value / size]),
      markLine: { symbol: 'none', label: { show: false }, data: index ? [] : dashes },
      markArea: { data: index ? [] : areas },
    })),
  });
};

document.fonts.load('12px Inter').then(() => {
  const head = add(document.body, 'header');
  add(head, 'b', '', model.title);
  for (const choice of model.choices) add(add(head, 'span', 'quiet', choice), 'b', '', 'All');
  add(head, 'span', 'time', model.time);
  for (const { kind, title, left, top, width, height, ...shown } of model.panels) {
    const style = { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` };
    const section = add(document.body, 'section', kind, '', style);
    add(section, 'h2', '', title);
    if ('empty' in shown) add(section, 'div', 'empty quiet', shown.empty);
    else ({ stat, bargauge: table, table, timeseries })[kind](section, shown);
  }
});
