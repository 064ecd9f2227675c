"""The page of the report, for Jinja with automatic escaping. No script, nothing from outside."""

from __future__ import annotations

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>vaekernels: a VAE on real digits</title>
<style>
  body { margin: 0 auto; max-width: 60rem; padding: 2.5rem 1.25rem 4rem; color: #1c2024;
         background: #fff; font: 16px/1.55 system-ui, "Helvetica Neue", Arial, sans-serif; }
  h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }
  h2 { font-size: 1.3rem; margin: 2.75rem 0 .5rem; }
  p { margin: .6rem 0; }
  .lead { font-size: 1.1rem; color: #444c56; }
  .figures { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.5rem 0; padding: 0;
             list-style: none; }
  .figures li { flex: 1 1 10rem; border: 1px solid #d9dee3; border-radius: 8px;
                padding: .8rem 1rem; }
  .figures b { display: block; font-size: 1.6rem; line-height: 1.3; }
  .figures span { color: #59636e; font-size: .92rem; }
  .scroll { overflow-x: auto; }
  table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
  th, td { padding: .5rem .75rem; text-align: right; border-bottom: 1px solid #d9dee3;
           white-space: nowrap; }
  th { font-size: .92rem; color: #59636e; font-weight: 600; vertical-align: bottom; }
  th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 15rem; }
  td small { display: block; color: #59636e; }
  td.ratio { font-weight: 700; }
  figure { margin: 1.25rem 0 0; }
  figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
  figcaption, .note { color: #59636e; font-size: .92rem; }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.25rem; margin: 0; }
  dt { color: #59636e; } dd { margin: 0; overflow-wrap: anywhere; }
  pre { background: #f4f6f8; border-radius: 8px; padding: .8rem 1rem; overflow-x: auto; }
</style>
</head>
<body>
<h1>A VAE on real handwritten digits</h1>
<p class="lead">A convolutional variational autoencoder, trained on {{ train_images }} digits of
{{ data }} with the fused ops of vaekernels and measured on {{ heldout_images }} digits that it
never saw.</p>
<ul class="figures">
  <li><b>{{ "%.2f"|format(elbo) }}</b><span>ELBO of a held-out digit, nats, after {{ epochs }}
    epochs: reconstruction {{ "%.2f"|format(-nll) }}, KL {{ "%.2f"|format(kl) }}; the best was
    {{ "%.2f"|format(best_elbo) }} after epoch {{ best_epoch }}</span></li>
  <li><b>{{ "%.2f"|format(step_ratio) }}&times;</b><span>eager PyTorch's time over ours: a whole
    training step</span></li>
  <li><b>{{ parity.loss }}</b><span>largest relative difference between the losses of
    {{ parity.steps }} training steps, from the same noise</span></li>
</ul>

<h2>The same work, eager PyTorch beside ours</h2>
<div class="scroll"><table>
<thead><tr><th>Work</th><th>Eager PyTorch</th><th>Ours</th><th>Eager, images/s</th>
<th>Ours, images/s</th><th>Ratio</th></tr></thead>
<tbody>
{%- for row in rows %}
<tr><td>{{ row.title }}<small>{{ row.detail }}</small></td><td>{{ row.eager }}</td>
<td>{{ row.ours }}</td><td>{{ row.eager_rate }}</td><td>{{ row.ours_rate }}</td>
<td class="ratio">{{ row.ratio }}&times;</td></tr>
{%- endfor %}
</tbody></table></div>
<p class="note">Medians, the two sides in turn in one process. The ratio is eager's time over
ours: above 1 ours is faster. Both sides have the same weights, batches and optimizer (Adam,
fused); here each draws its own noise, eager with <code>torch.randn_like</code>.</p>
<p>Of the eager training step the layers take {{ "%.1f"|format(100 * shares.layers) }}%, with a
ratio of {{ "%.2f"|format(layers_ratio) }}, and the latent ops and losses
{{ "%.1f"|format(100 * shares.latent) }}%, with {{ "%.2f"|format(latent_ratio) }}; the optimizer
takes {{ "%.1f"|format(100 * shares.optimizer) }}%. The shares are of one step, whose clock is read
between its parts; the rows above time each part alone.
{%- if conv_backend == "reference" %} Convolutions had no kernels of ours here (<code>vaekernels
info</code> says why): the layers are PyTorch's own on both sides.
{%- else %} On our side the convolutions ran on the {{ conv_backend }} kernels; the linear layers
are PyTorch's own on both sides.
{%- endif %}</p>

<h2>The same numbers</h2>
<p>Before any time was taken, both sides were trained for {{ parity.steps }} steps from the same
weights on the same batches, with the noise of <code>vk.randn</code> handed to eager PyTorch as a
tensor. More than {{ parity.tolerance }} in any line would have ended the demonstration with an
error.</p>
<div class="scroll"><table>
<thead><tr><th>Compared with plain PyTorch</th><th>Largest relative difference</th></tr></thead>
<tbody>
<tr><td>Training<small>losses of {{ parity.steps }} steps</small></td>
<td>{{ parity.loss }}</td></tr>
<tr><td>Encoding<small>sampled latents, relative to the largest</small></td>
<td>{{ parity.latents }}</td></tr>
<tr><td>Evaluation<small>held-out ELBO as training logged it, and of the saved weights on the
reference backend</small></td><td>{{ parity.elbo }}</td></tr>
</tbody></table></div>

<h2>What the model learned</h2>
{%- for picture in pictures %}
<figure><img src="data:image/png;base64,{{ picture.base64 }}" alt="{{ picture.title }}">
<figcaption>{{ picture.caption }} <code>{{ picture.name }}</code></figcaption></figure>
{%- endfor %}

<h2>Where this was measured</h2>
<dl>
{%- for name, value in machine.items() %}
<dt>{{ name }}</dt><dd>{{ value }}</dd>
{%- endfor %}
</dl>
<p class="note">Times are of this machine as busy as it was just then. All numbers are in
<code>comparison.json</code>, the model is in <code>{{ run_name }}/</code>.</p>

<h2>Go on from here</h2>
<pre>{{ commands }}</pre>
</body>
</html>
"""
